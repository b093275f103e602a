"""What an evaluator does while a round waits."""
