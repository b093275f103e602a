"""Questions to heads for classes: what is sent for them, and what a client makes of the logits that come back.

Each kind of question is a file that knows no other. Nothing of this is computed by parties.
"""
