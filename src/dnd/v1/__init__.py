"""Generated from protos/dnd/v1 by `make proto`; never edited."""
