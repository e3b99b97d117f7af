"""Where probe images come from: one source for each scheme of probes.yaml, in one table."""

from __future__ import annotations

from dnd_services.activations.sources.base import Entry, ProbeSource, SourceFile
from dnd_services.activations.sources.folder import ImageFolder
from dnd_services.activations.sources.parquet import ParquetFiles
from dnd_services.activations.sources.webdataset import WebDataset

__all__ = ["SOURCES", "Entry", "ProbeSource", "SourceFile"]

SOURCES: dict[str, ProbeSource] = {
    "imagefolder": ImageFolder(),
    "webdataset": WebDataset(),
    "parquet": ParquetFiles(),
}
"""Scheme of probes.yaml to source. A new kind of source is one more line."""
