"""What decides about the next token at a client who sees logits, besides chance. It must not know links or models."""
