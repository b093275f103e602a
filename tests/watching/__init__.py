"""Tests look on while parties run: at every draw from a stream, at what is said on a wire, at the processes that are
started; and start parties so that they can.
"""
