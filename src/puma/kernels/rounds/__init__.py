"""What two parties swap in a round, and how words are made ready for it. It must not know what they are for."""
