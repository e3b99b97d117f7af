"""Clients of the services: channels, endpoints, deadlines, errors. No retries here.

Retries have one owner, the coordinator (for direct calls, the caller). Every call carries a
deadline below the servers' connection-age grace, and waits until then for a server that is not up.
"""

from dnd.clients.activations import ActivationsClient
from dnd.clients.base import Calls, StageClient
from dnd.clients.channels import DEADLINE_S, EndpointPool, error_of
from dnd.clients.services import (
    JUDGE,
    SERVICE_NAMES,
    CaptionerClient,
    ScorerClient,
    Services,
    SummarizerClient,
    SynthesizerClient,
)

__all__ = [
    "DEADLINE_S",
    "JUDGE",
    "SERVICE_NAMES",
    "ActivationsClient",
    "Calls",
    "CaptionerClient",
    "EndpointPool",
    "ScorerClient",
    "Services",
    "StageClient",
    "SummarizerClient",
    "SynthesizerClient",
    "error_of",
]
