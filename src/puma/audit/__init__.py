"""Audits: the parties' part in a canary is computed again, and whoever did something else is named.

Owner and client together sit here, with all that both know: the weights, their masks, the prompt. Nothing of this runs
at a party, and no session that was not a canary is looked at.
"""
