"""Architectures: what is computed, written once for tensors, for shares and for torch's meta device."""
