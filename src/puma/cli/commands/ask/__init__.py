"""Commands of those who ask: each brings plaintext and shows an answer."""
