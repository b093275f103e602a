"""One party by itself: what it received in a run of three is recorded, and played to it again with more threads."""
