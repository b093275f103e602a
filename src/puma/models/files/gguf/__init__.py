"""GGUF, llama.cpp's form: one file holds settings, tokenizer, chat template and tensors, which are mostly quantised.

Source of the layout and of the names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's
convert_hf_to_gguf.py, whose changes to a checkpoint are undone here.
"""
