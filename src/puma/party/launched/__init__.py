"""A party of three on one machine, as the launcher's child: its program, and how it is forked."""
