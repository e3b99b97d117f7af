"""Dynamic batching: fullness, fairness, poison items, admission, callers that go away."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from dnd.errors import (
    BadImage,
    Cancelled,
    DeadlineExceeded,
    DndError,
    Internal,
    Overloaded,
    RequestTooLarge,
    StorageFull,
    Unavailable,
)
from dnd.serving import DynamicBatcher, Metrics
from dnd.serving.batching import pad_items
from dnd.types import OrError, Priority, RequestContext

INTERACTIVE = RequestContext(priority=Priority.INTERACTIVE)


class Device:
    """Doubles numbers; remembers its batches; waits for `go` before each."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.go = threading.Event()
        self.go.set()
        self.poison: dict[int, Exception] = {}

    def run(self, bucket: str, items: Sequence[int]) -> list[OrError[int]]:
        self.go.wait(10)
        self.batches.append((bucket, list(items)))
        for item in items:
            if item in self.poison:
                raise self.poison[item]
        return [2 * item for item in items]


def make(device: Device, **options: float) -> DynamicBatcher[str, int, int]:
    settings = {"max_batch": 4, "max_queue": 100, "max_wait_ms": 20.0} | options
    return DynamicBatcher(device.run, metrics=Metrics(), **settings)  # type: ignore[arg-type]


async def test_answers_come_back_to_their_callers_in_order() -> None:
    device = Device()
    batcher = make(device)
    answers = await asyncio.gather(*(batcher.submit("a", [i, i + 10]) for i in range(5)))
    assert answers == [[2 * i, 2 * (i + 10)] for i in range(5)]
    assert max(len(items) for _, items in device.batches) == 4
    await batcher.close()


async def test_batches_are_full_when_enough_waits() -> None:
    device = Device()
    metrics = Metrics()
    batcher = DynamicBatcher(
        device.run, max_batch=8, max_queue=100, max_wait_ms=20, metrics=metrics
    )
    await asyncio.gather(*(batcher.submit("a", [i]) for i in range(32)))
    assert [len(items) for _, items in device.batches] == [8, 8, 8, 8]
    await batcher.close()


async def test_buckets_are_never_mixed() -> None:
    device = Device()
    batcher = make(device)
    await asyncio.gather(*(batcher.submit("ab"[i % 2], [i]) for i in range(8)))
    assert all({i % 2 for i in items} == {"ab".index(bucket)} for bucket, items in device.batches)
    await batcher.close()


async def test_poison_item_fails_alone() -> None:
    device = Device()
    device.poison[3] = BadImage("three is bad")
    device.poison[5] = ZeroDivisionError("a defect")
    batcher = make(device, max_batch=8)
    answers = await batcher.submit("a", list(range(8)))
    assert [a for a in answers if not isinstance(a, DndError)] == [0, 2, 4, 8, 12, 14]
    assert isinstance(answers[3], BadImage)
    assert isinstance(answers[5], Internal)
    await batcher.close()


async def test_systemic_error_is_not_tried_item_by_item() -> None:
    device = Device()
    device.poison[0] = StorageFull("full")
    batcher = make(device)
    answers = await batcher.submit("a", [0, 1, 2])
    assert all(isinstance(a, StorageFull) for a in answers)
    assert len(device.batches) == 1
    await batcher.close()


async def test_wrong_number_of_results_is_a_defect_and_not_a_shift() -> None:
    batcher = DynamicBatcher[str, int, int](
        lambda bucket, items: [1], max_batch=4, max_queue=9, max_wait_ms=20, metrics=Metrics()
    )
    answers = await batcher.submit("a", [1, 2])
    assert answers == [1, 1]  # halved until each item has exactly one result
    await batcher.close()


async def test_full_queue_refuses_with_a_time_to_come_back() -> None:
    device = Device()
    device.go.clear()
    batcher = make(device, max_queue=6)
    first = asyncio.create_task(batcher.submit("a", list(range(6))))
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded) as caught:
        await batcher.submit("a", [7])
    assert caught.value.retry_after_s
    device.go.set()
    assert len(await first) == 6
    assert await batcher.submit("a", [7]) == [14]
    with pytest.raises(RequestTooLarge):
        await batcher.submit("a", list(range(7)))
    await batcher.close()


async def test_interactive_work_overtakes_batch_work() -> None:
    device = Device()
    device.go.clear()
    batcher = make(device, max_batch=1, max_wait_ms=0)
    busy = asyncio.create_task(batcher.submit("a", [0]))
    await asyncio.sleep(0.05)
    slow = asyncio.create_task(batcher.submit("a", [1, 2]))
    await asyncio.sleep(0.01)
    urgent = asyncio.create_task(batcher.submit("a", [3], context=INTERACTIVE))
    await asyncio.sleep(0.01)
    device.go.set()
    await asyncio.gather(busy, slow, urgent)
    assert [items for _, items in device.batches] == [[0], [3], [1], [2]]
    await batcher.close()


async def test_items_of_a_caller_that_went_away_never_reach_the_device() -> None:
    device = Device()
    device.go.clear()
    batcher = make(device, max_batch=1)
    busy = asyncio.create_task(batcher.submit("a", [0]))
    gone = asyncio.create_task(batcher.submit("a", [1]))
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    device.go.set()
    await busy
    assert await batcher.submit("a", [2]) == [4]
    assert [1] not in [items for _, items in device.batches]
    await batcher.close()


async def test_item_whose_time_is_over_is_answered_and_dropped() -> None:
    device = Device()
    device.go.clear()
    batcher = make(device, max_batch=1, max_wait_ms=0)
    busy = asyncio.create_task(batcher.submit("a", [0]))
    await asyncio.sleep(0.05)
    late = asyncio.create_task(batcher.submit("a", [1], timeout_s=0.01))
    await asyncio.sleep(0.05)
    device.go.set()
    assert isinstance((await late)[0], DeadlineExceeded)
    assert await busy == [0]
    await batcher.close()


async def test_close_answers_everybody() -> None:
    device = Device()
    device.go.clear()
    batcher = make(device, max_batch=1)
    tasks = [asyncio.create_task(batcher.submit("a", [i])) for i in range(3)]
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.05)
    device.go.set()
    await closing
    answers = [answer for task in tasks for answer in await task]
    assert all(isinstance(answer, Unavailable) for answer in answers)
    with pytest.raises(Unavailable):
        await batcher.submit("a", [9])


async def test_errors_stay_in_place_and_each_item_has_its_bucket() -> None:
    device = Device()
    batcher = make(device)
    bad = BadImage("not an image")
    answers = await batcher.submit_good(
        lambda item: "odd" if item % 2 else "even", [1, bad, 2, 3, bad, 4]
    )
    assert answers == [2, bad, 4, 6, bad, 8]
    assert sorted(device.batches) == [("even", [2, 4]), ("odd", [1, 3])]
    assert await batcher.submit_good(lambda item: "a", [bad, bad]) == [bad, bad]
    await batcher.close()


def test_padding_repeats_the_last_item() -> None:
    assert pad_items([1, 2], 4) == [1, 2, 2, 2]
    assert pad_items([1, 2], 2) == [1, 2]
    assert pad_items([1, 2], 0) == [1, 2]


class SteppingDevice:
    """Works in steps until it is told to finish, or its batch is abandoned."""

    def __init__(self) -> None:
        self.batcher = DynamicBatcher[str, int, int](
            self.run, max_batch=4, max_queue=100, max_wait_ms=20.0, metrics=Metrics()
        )
        self.started = threading.Event()
        self.finish = threading.Event()
        self.ends: list[str] = []

    def run(self, bucket: str, items: Sequence[int]) -> list[OrError[int]]:
        self.started.set()
        while not self.finish.wait(0.01):
            if self.batcher.is_abandoned():
                self.ends.append("stopped")
                raise Cancelled("All callers have gone.")
        self.ends.append("finished")
        return [2 * item for item in items]


async def test_time_of_the_device_is_counted_once_when_batches_wait_for_another_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("dnd.serving.batching.time.perf_counter", lambda: clock[0])
    device, metrics, go = Device(), Metrics(), threading.Event()
    batcher = DynamicBatcher(device.run, max_batch=4, max_queue=100, max_wait_ms=0, metrics=metrics)

    def index_shard() -> int:
        go.wait(10)
        clock[0] += 5.0
        return 0

    alone = asyncio.create_task(batcher.run_alone(index_shard))
    batch = asyncio.create_task(batcher.submit("a", [1]))
    await asyncio.sleep(0.05)
    go.set()
    assert await asyncio.gather(alone, batch) == [0, [2]]
    await batcher.close()
    assert metrics.registry.get_sample_value("dnd_device_seconds_total") == 5.0


async def test_batch_on_the_device_stops_once_all_of_its_callers_have_gone() -> None:
    device = SteppingDevice()
    callers = [asyncio.create_task(device.batcher.submit("a", [i, i])) for i in range(2)]
    await asyncio.to_thread(device.started.wait, 10)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    device.finish.clear()
    while not device.ends:
        await asyncio.sleep(0.01)
    assert device.ends == ["stopped"]
    device.finish.set()
    assert await device.batcher.submit("a", [3]) == [6]  # the device is free again
    await device.batcher.close()


async def test_batch_on_the_device_finishes_while_one_caller_is_left() -> None:
    device = SteppingDevice()
    gone = asyncio.create_task(device.batcher.submit("a", [1]))
    left = asyncio.create_task(device.batcher.submit("a", [2, 3]))
    await asyncio.to_thread(device.started.wait, 10)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert not device.batcher.is_abandoned()
    device.finish.set()
    assert await left == [4, 6]
    assert device.ends == ["finished"]
    await device.batcher.close()
