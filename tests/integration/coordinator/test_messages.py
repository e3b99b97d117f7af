"""The broker may deliver what it likes as often as it likes."""

from __future__ import annotations

from typing import Any

import pytest
from coordinator_stack import SPEC, CoordinatorStack, Gate, finish, records, wait_until

from dnd.client import Client
from dnd.errors import Unavailable
from dnd.jobs import JobState
from dnd.stack.valkey import free_port, valkey_url
from dnd.testing import Fakes
from dnd_services.coordinator.celery_app import Task, make_app, publish
from dnd_services.coordinator.models import WorkRow
from dnd_services.coordinator.store.claims import Ticket
from dnd_services.coordinator.waiting import Waiting


def deliver_again(stack: CoordinatorStack, job_id: str) -> int:
    """Publishes a message for everything that was ever handed out; answers how many."""
    app = make_app(stack.redis_url)
    rows = [row for row in stack.claimables(job_id) if row.fence]
    for row in rows:
        stage = row.stage if isinstance(row, WorkRow) else "synthesize"
        publish(app, Task(stage, True, (Ticket(row.id, row.fence),)))
    app.close()
    return len(rows)


def test_nothing_is_done_twice_when_messages_are_delivered_twice(
    stack: CoordinatorStack, client: Client, fakes: Fakes, undisturbed: list[dict[str, Any]]
) -> None:
    gate = fakes.summarizer.faults.call = Gate("ProposeConcepts")
    job_id = client.create_job(SPEC).id
    gate.wait()
    assert deliver_again(stack, job_id)
    gate.open()
    assert finish(client, job_id).state is JobState.COMPLETED
    num_sent = deliver_again(stack, job_id)
    assert num_sent > 30
    wait_until(lambda: not stack.num_messages(), "all messages are taken")
    wait_until(lambda: not stack.redis.hlen("unacked"), "all messages are worked off")
    assert records(client, job_id) == undisturbed
    asked = fakes.summarizer.faults.num_items + fakes.synthesizer.faults.num_items
    assert {method for method, _ in asked} == {"ProposeConcepts", "SynthesizeImages"}
    assert set(asked.values()) == {1}
    assert max(row.dispatches for row in stack.claimables(job_id)) == 1


def test_tickets_of_messages_that_wait_are_read_and_the_messages_stay(
    stack: CoordinatorStack,
) -> None:
    app, waiting = make_app(stack.redis_url), Waiting(stack.redis_url)
    sent = {is_batch: (Ticket(7, 1 + is_batch), Ticket(8, 3)) for is_batch in (False, True)}
    for is_batch, tickets in sent.items():
        publish(app, Task("nobody", is_batch, tickets))
    stack.redis.rpush("dnd.nobody.batch", b"\xff", b"{}", b'{"body": "bm8="}', b'{"body": 5}')
    for _ in range(2):
        assert waiting.tickets("nobody") == {Ticket(7, 1), Ticket(7, 2), Ticket(8, 3)}
    assert waiting.tickets("no message") == set()
    stack.redis.delete("dnd.nobody.interactive", "dnd.nobody.batch")
    waiting.close()
    app.close()


def test_nothing_is_said_of_messages_when_the_broker_is_away() -> None:
    waiting = Waiting(valkey_url(free_port()))
    with pytest.raises(Unavailable, match="broker"):
        waiting.tickets("caption")
    waiting.close()
