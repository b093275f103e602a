"""Weights that everybody may know, on the side of who has the files: what parties are told of them, and the table in
which a client looks its tokens up."""
