"""Describe-and-Dissect: every unit of a vision network, described in plain language."""
