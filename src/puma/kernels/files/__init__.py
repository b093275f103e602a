"""Matrices as they lie in files: how their numbers become words, and products with them byte by byte. It must not know
what the matrices are."""
