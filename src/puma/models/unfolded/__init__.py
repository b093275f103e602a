"""Folded parameters as they lie in the files that they were folded from, for those who may know them: a matrix of a
file and a factor for each of its columns, so that nothing of a model's size is written down once more.

This room must not know shares, parties or links.
"""
