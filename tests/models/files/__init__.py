"""Forms of checkpoints: tests of puma.models.files."""
