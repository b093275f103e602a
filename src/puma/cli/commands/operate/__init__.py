"""Commands of those who keep parties, models and keys."""
