"""A computing party as a process: a daemon that serves sessions, or one of three on this machine.

With engine and store it is all that a stranger can reach. Must not know clients' code.
"""
