"""What a client makes of the parties' signed statements: a receipt, checked at once, kept, and checked again later.

It must not know how an answer is computed, nor where the parties run.
"""
