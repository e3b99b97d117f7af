"""What servicers check and read before anything is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import grpc
from PIL import Image as PillowImage

from dnd.artifacts import ArtifactStore
from dnd.errors import (
    BadImage,
    DigestMismatch,
    DndError,
    InvalidInput,
    Kind,
    RequestTooLarge,
    kind_of,
)
from dnd.images import decode_image, encode_png
from dnd.types import OrError, Priority, RequestContext
from dnd.v1 import types_pb2

T = TypeVar("T")

_decoders = ThreadPoolExecutor(4, thread_name_prefix="decode")


class _WithContext(Protocol):
    @property
    def context(self) -> types_pb2.RequestContext: ...


def request_context(message: _WithContext) -> RequestContext:
    """Who asks; an unspecified priority counts as batch."""
    wire = message.context
    urgent = wire.priority == types_pb2.PRIORITY_INTERACTIVE
    return RequestContext(
        tenant=wire.tenant or "default",
        job=wire.job,
        priority=Priority.INTERACTIVE if urgent else Priority.BATCH,
        trace_id=wire.trace_id,
    )


def remaining_s(context: grpc.aio.ServicerContext) -> float | None:  # type: ignore[type-arg]
    """Time left of the caller's deadline, seconds; None without one."""
    left = context.time_remaining()
    return None if left is None else float(left)


def check_digest(asked: str, have: str) -> None:
    """Raises DigestMismatch if the caller is frozen to other weights."""
    if asked and asked != have:
        raise DigestMismatch(
            f"The caller expects weights {asked[:12]}…, this replica holds {have[:12] or 'none'}…: "
            "start replicas with the weights that the job was created with, or create it again."
        )


def check_count(what: str, num: int, low: int, high: int) -> None:
    """Raises InvalidInput or RequestTooLarge for a number of items outside of low..high."""
    if num < low:
        raise InvalidInput(f"The request has {num} {what}: expected at least {low}.")
    if num > high:
        raise RequestTooLarge(f"The request has {num} {what}: expected at most {high}.")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raises InvalidInput for a value outside of low..high."""
    if not low <= value <= high:
        raise InvalidInput(f"{what} is {value}: expected {low} to {high}.")


def raise_if_none_was_asked(answers: Sequence[OrError[object]]) -> None:
    """Raises the first error if nothing could be worked on: a whole call can say when to retry."""
    errors = [one for one in answers if isinstance(one, DndError)]
    if (
        errors
        and len(errors) == len(answers)
        and all(kind_of(one) is not Kind.ITEM for one in errors)
    ):
        raise errors[0]


def read_bytes(image: types_pb2.Image, store: ArtifactStore) -> bytes:
    """The encoded bytes of an image, inline or from the store."""
    source = image.WhichOneof("source")
    if source is None:
        raise BadImage("The image has neither a reference nor bytes.")
    return image.data if source == "data" else store.get_bytes(image.ref)


async def read_images(
    images: Sequence[types_pb2.Image], store: ArtifactStore
) -> list[OrError[PillowImage.Image]]:
    """Decoded RGB images in order, each read and decoded in a thread pool of its own."""
    return await prepare_images(images, store, lambda image: image)


async def prepare_images(
    images: Sequence[types_pb2.Image],
    store: ArtifactStore,
    prepare: Callable[[PillowImage.Image], T],
) -> list[OrError[T]]:
    """What `prepare` makes of each image, in order.

    Reading, decoding and preparing an image is one piece of work in the pool, so that only as many
    decoded images are in memory as the pool has threads, however many a request has.
    """

    def read(image: types_pb2.Image) -> OrError[T]:
        try:
            return prepare(decode_image(read_bytes(image, store)))
        except DndError as error:
            return error

    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(_decoders, read, one) for one in images))


async def put_images(
    images: Sequence[OrError[PillowImage.Image]], store: ArtifactStore
) -> list[OrError[str]]:
    """References of images, encoded as PNG and stored in the thread pool; errors pass through."""

    def write(image: OrError[PillowImage.Image]) -> OrError[str]:
        if isinstance(image, DndError):
            return image
        return store.put_bytes(encode_png(image))

    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(_decoders, write, one) for one in images))
