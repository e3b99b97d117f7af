"""Training code of the starter pack; see ../README.md for the one command that runs it."""
