"""The version of this program, which all parties, owners and clients must have in common."""

VERSION = "0.1.0"
