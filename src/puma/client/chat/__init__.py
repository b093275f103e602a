"""Conversations as prompts: `format` reads a model's chat templates and what they may name, `sandbox` runs them, and
`conversation` keeps what was said. None of it knows links or parties.
"""
