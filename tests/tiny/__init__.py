"""Tiny models of the real architectures with seeded random weights, saved as the real ones are."""
