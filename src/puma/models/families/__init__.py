"""Families: how checkpoints say what an architecture computes, as data."""
