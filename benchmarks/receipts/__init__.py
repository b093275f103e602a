"""What hash chains of receipts cost three parties: measured inside them (`party`, `run`)."""
