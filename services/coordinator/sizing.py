"""How many items a task gets."""

from __future__ import annotations

from dnd_services.coordinator.settings import CoordinatorSettings


def size_task(settings: CoordinatorSettings, num_ready: int, num_slots: int, item_s: float) -> int:
    """Items of the next task of a stage.

    By predicted time, not by a fixed number; spread over the free workers where there is little to
    do; but not so thin that model servers cannot fill their batches.

    Args:
        num_ready: Items that wait.
        num_slots: Tasks that can be handed out now, >= 1.
        item_s: Mean time of an item as measured, seconds; 0 before the first.
    """
    fair_share = -(-num_ready // max(num_slots, 1))
    wanted = max(fair_share, min(settings.min_task_items, num_ready))
    if item_s > 0:
        target = max(int(settings.target_task_s / item_s), settings.min_task_items)
        cap = max(int(settings.cap_task_s / item_s), 1)
        wanted = min(wanted, target, cap)
    else:
        wanted = min(wanted, settings.min_task_items)
    return max(1, min(wanted, settings.max_task_items, num_ready))
