"""A second dealer, where there is one: who meets whom, and how the evaluators hold P0 against it.

It must not know what a dealer computes.
"""
