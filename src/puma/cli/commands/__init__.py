"""A file for each command, loaded when it is called, in the room of who runs it.

Options that several have in common are in cli/options.py.
"""
