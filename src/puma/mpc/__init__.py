"""The protocol, from the view of one party: shares, the primitives on them, what each costs.

Knows rings, masks and rounds; knows no layer, model, file or address.
"""
