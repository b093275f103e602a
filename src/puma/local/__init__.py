"""Three parties on this machine: for trying and for tests, not for secrets."""
