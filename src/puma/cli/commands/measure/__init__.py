"""Commands that say what a model costs, how right it is, and whether it can be served."""
