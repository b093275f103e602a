"""What is said beside requests: of what parties keep, and of the network between them."""
