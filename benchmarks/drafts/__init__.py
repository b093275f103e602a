"""How many tokens a step decides with drafts, by the plain model as the client would see it, and by three parties."""
