"""A deployment of deploy/k8s, looked at and acted on through the API server."""

from dnd.cluster.api import ClusterApi
from dnd.cluster.doctor import Finding, examine
from dnd.cluster.manifests import read_manifests
from dnd.cluster.snapshot import Rollout, Snapshot, read_snapshot

__all__ = [
    "ClusterApi",
    "Finding",
    "Rollout",
    "Snapshot",
    "examine",
    "read_manifests",
    "read_snapshot",
]
