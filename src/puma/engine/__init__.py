"""One party's work on requests: state, steps, admission, the offline phase, and the dry run that counts it.

Must not know a socket, a file name or a process.
"""
