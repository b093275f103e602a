"""LoRA adapters at the owner: what one changes, and the checkpoint under it. This room must not know shares."""
