"""Puma beside SPU, the framework that PUMA was written in: the same functions at the same sizes in both."""
