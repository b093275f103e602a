"""What the owner of a model spends before it is shared."""
