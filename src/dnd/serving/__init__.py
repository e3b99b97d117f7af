"""What every gRPC server shares: start and end, batching, inputs, metrics, weights."""

from dnd.serving.batching import DynamicBatcher
from dnd.serving.metrics import Metrics
from dnd.serving.server import StageService, run

__all__ = ["DynamicBatcher", "Metrics", "StageService", "run"]
