"""What evaluators do while they wait."""
