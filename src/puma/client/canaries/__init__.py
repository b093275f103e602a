"""Canaries at a client: committing to a session before it begins, asking what means nothing, and opening it afterwards.

It must not know how a party's part is computed again, nor where the parties run.
"""
