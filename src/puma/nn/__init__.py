"""Functions and layers with torch's names, on torch tensors (the plain run) and on shares (the secure run).

Knows numerics: ranges, fraction bits, approximations and their error. Touches no socket, key or kernel.
"""
