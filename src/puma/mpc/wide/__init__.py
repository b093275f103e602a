"""Products of two secrets in rings of more than 64 bits, so that what comes out need not be lifted."""
