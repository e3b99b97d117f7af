"""What KEDA and the autoscaler behind it do with a ScaledObject, in few lines: for tests."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


@dataclass
class SimulatedScaler:
    """Decides on replicas by the metrics page of a coordinator.

    Of the manifest it takes the stages that are watched and the bounds. From none to one as soon as
    a value is above 0; then by the largest value over `target_s`, at most double, down by one at a
    time; to the fewest when all values are 0. Stabilisation windows are left out.

    Attributes:
        target_s: Seconds of backlog for one replica, in place of the manifest's.
    """

    manifest: Mapping[str, Any]
    page: str
    target_s: float

    def desired(self, current: int) -> int:
        """How many replicas there should be."""
        spec = self.manifest["spec"]
        values = [self._read(one["metadata"]["valueLocation"]) for one in spec["triggers"]]
        if max(values) <= 0:
            return max(current - 1, int(spec["minReplicaCount"]))
        wanted = min(math.ceil(max(values) / self.target_s), int(spec["maxReplicaCount"]))
        return max(1, min(wanted, max(1, 2 * current)), current - 1)

    def _read(self, location: str) -> float:
        """The value of a series, 'name{label="value"}'."""
        name, _, rest = location.partition("{")
        label, _, value = rest.rstrip("}").partition("=")
        with urllib.request.urlopen(self.page, timeout=10) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels.get(label) == value.strip('"'):
                    return float(sample.value)
        raise AssertionError(f"{location} is not on {self.page}")
