"""The version of the project, which images know too: they hold files, not the distribution."""

VERSION = "0.1.0"
