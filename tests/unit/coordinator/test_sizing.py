from __future__ import annotations

from dataclasses import replace

import pytest

from dnd_services.coordinator.settings import CoordinatorSettings
from dnd_services.coordinator.sizing import size_task

SETTINGS = CoordinatorSettings()


@pytest.mark.parametrize(
    ("num_ready", "num_slots", "item_s", "expected"),
    [
        (1000, 4, 0.0, 4),  # nothing measured yet: a small one
        (1000, 4, 1.0, 20),  # 20 s of predicted time
        (1000, 4, 0.01, 250),  # a fair share of what is quick
        (10_000, 4, 0.01, 512),  # never more than 512
        (48, 4, 0.1, 12),  # little to do: a fair share for each slot
        (6, 4, 0.1, 4),  # but not so thin that batches stay empty
        (2, 4, 0.1, 2),
        (1000, 4, 10.0, 4),  # 4 items are above the target of 20 s and below the cap of 60 s
        (1000, 4, 40.0, 1),  # above the cap: singly
        (1000, 0, 1.0, 20),  # urgent work beyond the slots
    ],
)
def test_task_is_sized_by_time_share_and_batch(
    num_ready: int, num_slots: int, item_s: float, expected: int
) -> None:
    assert size_task(SETTINGS, num_ready, num_slots, item_s) == expected


def test_task_is_longer_when_the_target_is() -> None:
    patient = replace(SETTINGS, target_task_s=40.0)
    assert size_task(patient, 1000, 4, 1.0) == 40
