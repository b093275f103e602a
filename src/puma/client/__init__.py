"""Who holds plaintext: the client, who shares prompts and joins answers, and the owner, who shares models.

Must not know how a party works.
"""
