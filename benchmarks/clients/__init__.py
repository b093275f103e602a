"""What clients get who ask at the same time, against one who asks alone: measured (`run`), and as tables (`table`)."""
