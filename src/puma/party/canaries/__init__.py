"""Canaries at a party: what it says before a session that may be audited, and discloses of one that was a canary.

This room sees pair secrets, and gives them away under one condition. It must not see a share or a request.
"""
