"""The files of checkpoints: where config, tokenizer and tensors come from, and in what form they lie there.

A file here knows one form. It must not know families: which tensor a model needs, and what its settings mean, is said
above.
"""
