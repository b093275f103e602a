"""How answers grow where a step decides more than a token of each. It must not know how text is spelt."""
