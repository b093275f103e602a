"""Drafts: what a client guesses that an answer goes on with, so that one step of the parties decides several tokens.

Guesses are made here, by whoever may read the text, and cost the parties little: a step of some tokens takes the rounds
of one. A wrong guess changes no answer. This room must not know links or shares.
"""
