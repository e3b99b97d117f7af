"""Sampling short answers from a causal language model, each as if it were alone.

An answer must not depend on the calls that happen to share its batch. So every prompt is read on
its own: on a CPU that costs nothing, since a hundred tokens fill it already, and its bits depend on
nothing but itself, which is why they may be rough, of products in bfloat16. Only then do rows meet,
in buffers of one shape, for the few tokens of their answers. Sampling adds Gumbel noise from a
generator of the row's own to logits / temperature and takes the largest, which draws from the very
softmax. What all prompts of a kind begin with, instructions and worked examples, is read once and
kept.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from dnd.serving.batching import pad_items

Tokens: TypeAlias = tuple[int, ...]

LENGTH_STEP = 64
"""Prompts are batched with those of the same length, rounded up to this many tokens."""

MIN_P = 0.25
"""Tokens less likely than this share of the likeliest one are never drawn: a small model's tail is
noise, and one word of it spoils a label of three."""

_KEPT_PREFIXES = 8


@dataclass(frozen=True)
class Bucket:
    """What the rows of one batch share.

    Attributes:
        prefix: Tokens that all of their prompts begin with.
        length: Tokens of a prompt at most, the prefix included.
        max_tokens: Tokens of an answer at most.
        one_line: Whether an answer ends with its first line.
    """

    prefix: Tokens
    length: int
    max_tokens: int
    one_line: bool = True


@dataclass(frozen=True)
class Row:
    """One call: the tokens after the prefix, and how its answer is drawn."""

    rest: Tokens
    temperature: float
    seed: int


def bucket_of(prefix: Tokens, rest: Tokens, max_tokens: int, one_line: bool = True) -> Bucket:
    """The bucket of a prompt."""
    length = -(-(len(prefix) + len(rest)) // LENGTH_STEP) * LENGTH_STEP
    return Bucket(prefix, length, max_tokens, one_line)


class BufferLayer(DynamicLayer):
    """Keys and values of one layer in a buffer that has room for all tokens to come."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, filled: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys, self._values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._fill(filled)

    def _fill(self, filled: int) -> None:
        self._filled = filled
        self.keys = self._keys[:, :, :filled]
        self.values = self._values[:, :, :filled]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        end = self._filled + key_states.shape[-2]
        self._keys[:, :, self._filled : end] = key_states
        self._values[:, :, self._filled : end] = value_states
        self._fill(end)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values


@dataclass(frozen=True)
class _Read:
    """A prompt that was read: its keys and values by layer, and the logits of the next token."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    logits: torch.Tensor


class Decoder:
    """Samples answers from `model`.

    Args:
        model: A causal language model of transformers whose cache holds keys and values of every
            token (no state-space layers).
        stop_ids: Tokens that end an answer.
        line_ids: Tokens that end a line.
        num_rows: Rows are padded to this many, so that bits repeat; 0 for rows as they come.
    """

    def __init__(
        self, model: Any, stop_ids: frozenset[int], line_ids: frozenset[int], num_rows: int
    ) -> None:
        self._model = model
        self._stop_ids = stop_ids
        self._line_ids = line_ids
        self._num_rows = num_rows
        self._prefixes: OrderedDict[Tokens, _Read] = OrderedDict()

    @torch.inference_mode()
    def generate(self, bucket: Bucket, rows: Sequence[Row]) -> list[Tokens]:
        """The tokens of each row's answer, the one that ends it included."""
        reads = [self._read(bucket.prefix, row.rest) for row in rows]
        generators = [torch.Generator().manual_seed(row.seed) for row in rows]
        stops = self._stop_ids | self._line_ids if bucket.one_line else self._stop_ids
        answers: list[list[int]] = [[] for _ in rows]
        logits = torch.stack([read.logits for read in reads])
        cache, mask, positions = self._join(bucket, reads)
        for step in range(bucket.max_tokens):
            for number, row in enumerate(rows):
                if not _ended(answers[number], stops):
                    token = _draw(logits[number], row.temperature, generators[number])
                    answers[number].append(token)
            if step + 1 == bucket.max_tokens or all(_ended(one, stops) for one in answers):
                break
            last = torch.tensor([[answer[-1]] for answer in pad_items(answers, self._num_rows)])
            mask[:, bucket.length + step] = 1
            logits = self._forward(
                last,
                cache,
                attention_mask=mask[:, : bucket.length + step + 1],
                position_ids=positions + step,
            )
        return [tuple(answer) for answer in answers]

    def _read(self, prefix: Tokens, rest: Tokens) -> _Read:
        """Reads one prompt, beginning where its prefix ends."""
        start = self._read_prefix(prefix).layers if prefix else []
        cache = DynamicCache()
        for number, (keys, values) in enumerate(start):
            cache.update(keys, values, number)
        position_ids = torch.arange(len(prefix), len(prefix) + len(rest))[None]
        with _rough_products():
            logits = self._forward(torch.tensor([rest]), cache, position_ids=position_ids)
        layers: list[Any] = cache.layers
        return _Read([(layer.keys, layer.values) for layer in layers], logits[0])

    def _read_prefix(self, prefix: Tokens) -> _Read:
        if prefix not in self._prefixes:
            self._prefixes[prefix] = self._read((), prefix)
            if len(self._prefixes) > _KEPT_PREFIXES:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(prefix)
        return self._prefixes[prefix]

    def _join(self, bucket: Bucket, reads: list[_Read]) -> tuple[Cache, torch.Tensor, torch.Tensor]:
        """Buffers for all rows; behind a short prompt lies a gap, which the mask hides."""
        reads = pad_items(reads, self._num_rows)
        room = bucket.length + bucket.max_tokens
        mask = torch.zeros(len(reads), room, dtype=torch.long, device=self._model.device)
        positions = torch.zeros(len(reads), 1, dtype=torch.long, device=self._model.device)
        layers = []
        for parts in zip(*(read.layers for read in reads), strict=True):
            buffers = []
            for kind in (0, 1):
                shape = (len(reads), parts[0][kind].shape[1], room, parts[0][kind].shape[3])
                buffer = parts[0][kind].new_zeros(shape)
                for number, part in enumerate(parts):
                    buffer[number, :, : part[kind].shape[2]] = part[kind][0]
                buffers.append(buffer)
            layers.append(BufferLayer(buffers[0], buffers[1], bucket.length))
        for number, read in enumerate(reads):
            length = read.layers[0][0].shape[2]
            mask[number, :length] = 1
            positions[number] = length
        return Cache(layers=list(layers)), mask, positions

    def _forward(self, tokens: torch.Tensor, cache: Cache, **kwargs: torch.Tensor) -> torch.Tensor:
        """Logits of the next token, `(rows, vocabulary)`, float32 on the CPU."""
        device = self._model.device
        result = self._model(
            input_ids=tokens.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **{name: value.to(device) for name, value in kwargs.items()},
        )
        logits: torch.Tensor = result.logits[:, -1]
        return logits.float().cpu()


@contextmanager
def _rough_products() -> Iterator[None]:
    """float32 matrices are multiplied in bfloat16 where the processor can."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _ended(answer: Sequence[int], stops: frozenset[int]) -> bool:
    return bool(answer) and answer[-1] in stops


def _draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    """One token from softmax(logits / temperature), by the Gumbel-max trick; greedy at 0."""
    if temperature > 0:
        logits = logits.masked_fill(logits < logits.max() + math.log(MIN_P), -math.inf)
        uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-300)))
        logits = logits.double() / temperature + noise
    return int(torch.argmax(logits))
