"""Puma."""
