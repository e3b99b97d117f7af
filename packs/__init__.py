"""Model packs that ship with Describe-and-Dissect (importable as ``dnd_packs``)."""
