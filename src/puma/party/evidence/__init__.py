"""What a party can show of what it did: signed statements about requests, and what it keeps to answer for them later.

This room sees heads of chains, digests and public words; it must not see a share, a seed or what is asked.
"""
