"""One file for each change of the tables; the first one makes all of them."""
