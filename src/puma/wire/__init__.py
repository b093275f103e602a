"""What outsiders and parties say to each other, and how an input is shared.

Both sides import it and it imports neither. Knows messages and formats; must not know links, files or processes.
"""
