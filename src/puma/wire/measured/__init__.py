"""Inputs that are rows of numbers: how these are shared, and sound. It must not know what a request asks for."""
