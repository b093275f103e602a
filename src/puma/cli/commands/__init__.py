"""A file for each command, loaded when it is called. Options that several have in common are in cli/options.py."""
