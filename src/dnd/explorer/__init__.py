"""The explorer: pages on which people read what a job has found, on a server or in a folder."""
