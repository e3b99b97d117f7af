"""What KEDA and the autoscaler behind it do with a ScaledObject, in few lines: for tests."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read_metrics(url: str) -> Series:
    """The values of a metrics page by name and labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


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
    target_s: float

    def desired(self, current: int, metrics: Series) -> int:
        """How many replicas there should be.

        Raises:
            KeyError: A value that the manifest names is not on the page.
        """
        spec = self.manifest["spec"]
        values = [metrics[_place(one["metadata"]["valueLocation"])] for one in spec["triggers"]]
        if max(values) <= 0:
            return max(current - 1, int(spec["minReplicaCount"]))
        wanted = min(math.ceil(max(values) / self.target_s), int(spec["maxReplicaCount"]))
        return max(1, min(wanted, max(1, 2 * current)), current - 1)


def _place(location: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """'name{label="value"}' as a key of `Series`."""
    name, _, rest = location.partition("{")
    label, _, value = rest.rstrip("}").partition("=")
    return name, frozenset({(label, value.strip('"'))})
