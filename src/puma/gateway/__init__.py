"""An OpenAI-compatible endpoint in front of a cluster, on the client's own machine: it sees prompts and answers in the
clear, as the client does. Knows HTTP and a cluster's Python surface; must not know parties, shares or links.
"""
