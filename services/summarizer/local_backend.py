"""A causal language model of transformers, from a folder of safetensors or a GGUF file."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from jinja2 import TemplateError
from safetensors.torch import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from dnd.errors import DndError, ModelMissing, RequestTooLarge
from dnd.keys import digest_of
from dnd.serving import DynamicBatcher, Metrics
from dnd.serving.placement import (
    Placement,
    check_tensors,
    describe_model,
    loading,
    place_model,
)
from dnd.serving.weights import weights_digest
from dnd.settings import ModelServerSettings
from dnd.types import ModelInfo, OrError, RequestContext
from dnd_services.summarizer.decoding import Bucket, Decoder, Row, Tokens, bucket_of
from dnd_services.summarizer.gguf_cache import find_converted, keep_converted
from dnd_services.summarizer.llm import ChatAnswer, ChatCall, Message
from dnd_services.summarizer.model_files import ModelFiles, find_model_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Item:
    """A call in tokens, and the bucket it is batched in."""

    bucket: Bucket
    row: Row


class LocalChatModel:
    """Answers chats with a model of this process, batched over callers.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        info: Which weights these are; batches are padded to `info.fixed_batch` unless it is 0.
        settings: Batching.
        metrics: Where batches are recorded.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        info: ModelInfo,
        settings: ModelServerSettings,
        metrics: Metrics,
    ) -> None:
        self.info = info
        self._tokenizer = tokenizer
        self._max_length = int(getattr(model.config, "max_position_embeddings", 0)) or 2048
        self._stops = _stop_ids(model, tokenizer)
        self._lines = _line_ids(tokenizer)
        self._decoder = Decoder(model, self._stops, self._lines, info.fixed_batch)
        self._batcher = DynamicBatcher[Bucket, _Item, Tokens](
            self._generate,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            max_wait_ms=settings.max_wait_ms,
            metrics=metrics,
        )
        self._shared_tokens = functools.lru_cache(maxsize=64)(self._spell_shared)

    async def complete(
        self, calls: Sequence[ChatCall], *, context: RequestContext, timeout_s: float | None
    ) -> list[OrError[ChatAnswer]]:
        """As `ChatModel.complete`."""
        items = await asyncio.to_thread(lambda: [self._prepare(call) for call in calls])
        answers = await self._batcher.submit_good(
            lambda item: item.bucket, items, context=context, timeout_s=timeout_s
        )
        return [
            tokens if isinstance(tokens, DndError) else self._answer(item, tokens)
            for item, tokens in zip(items, answers, strict=True)
        ]

    async def close(self) -> None:
        """Ends the device thread."""
        await self._batcher.close()

    def _generate(self, bucket: Bucket, items: Sequence[_Item]) -> list[Tokens]:
        return self._decoder.generate(bucket, [item.row for item in items])

    def _prepare(self, call: ChatCall) -> OrError[_Item]:
        tokens = self._spell(call.messages, ask=True)
        prefix = self._shared_tokens(call.messages[: call.num_shared])
        if tokens[: len(prefix)] != prefix or len(tokens) == len(prefix):
            prefix = ()  # this chat template does not tell turns apart
        bucket = bucket_of(prefix, tokens[len(prefix) :], call.max_tokens, call.one_line)
        if bucket.length + bucket.max_tokens > self._max_length:
            return RequestTooLarge(
                f"A prompt has {len(tokens)} tokens: {self.info.name} takes {self._max_length} "
                "with its answer. Use fewer or shorter captions."
            )
        return _Item(bucket, Row(tokens[len(prefix) :], call.temperature, call.seed))

    def _spell(self, messages: tuple[Message, ...], *, ask: bool) -> Tokens:
        """A chat in tokens; with `ask`, up to where the model's answer begins."""
        return tuple(
            self._tokenizer(self._render(messages, ask), add_special_tokens=False).input_ids
        )

    def _spell_shared(self, messages: tuple[Message, ...]) -> Tokens:
        """What all calls of a prompt begin with, where the chat template takes that alone."""
        try:
            return self._spell(messages, ask=False) if messages else ()
        except TemplateError:
            return ()

    def _render(self, messages: Sequence[Message], ask: bool) -> str:
        turns = [{"role": one.role, "content": self._defuse(one.content)} for one in messages]
        if not self._tokenizer.chat_template:
            texts = [str(turn["content"]) for turn in turns]
            begin = self._tokenizer.bos_token or ""
            return begin + "".join(f"{text}\n" for text in texts)
        try:
            return self._apply(turns, ask)
        except TemplateError:
            if messages[0].role != "system" or len(messages) < 2:
                raise
        # Some templates know no system turn: its text goes in front of the first question.
        first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
        return self._apply([first, *turns[2:]], ask)

    def _apply(self, turns: list[dict[str, str]], ask: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
        )

    def _defuse(self, text: str) -> str:
        """Captions are untrusted: nothing in them may read as the end of a turn."""
        for token in self._tokenizer.all_special_tokens:
            text = text.replace(token, " ")
        return text

    def _answer(self, item: OrError[_Item], tokens: Tokens) -> ChatAnswer:
        assert isinstance(item, _Item)
        stops = self._stops | self._lines if item.bucket.one_line else self._stops
        return ChatAnswer(
            text=self._tokenizer.decode(tokens, skip_special_tokens=True),
            num_input_tokens=len(item.bucket.prefix) + len(item.row.rest),
            num_output_tokens=len(tokens),
            finished=bool(tokens) and tokens[-1] in stops,
        )


def load_chat_model(
    settings: ModelServerSettings,
    prompts_digest: str,
    metrics: Metrics,
    cache: Path | None = None,
) -> LocalChatModel:
    """Loads the model of `settings`.

    Args:
        prompts_digest: Of the prompt sets: part of the model's digest, since the answers follow
            from both.
        cache: Where a GGUF file is kept as the tensors that it was turned into; None for nowhere.

    Raises:
        BadSetting: The device or the name of the model cannot be used.
        ModelMissing: The model is not there, incomplete, or does not answer.
        UnsafeModelFile: It is there only as a pickle.
    """
    files = find_model_files(settings.model)
    digest = weights_digest(files.path)
    placement = place_model(settings)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if cache is None or files.gguf_file is None:
        model, tokenizer = _read(settings.model, files, placement)
    else:
        model, tokenizer = _read_converted(settings, files, digest, placement, cache)
    model = model.to(placement.device).eval()
    whole = digest_of(digest, prompts_digest)
    info = describe_model(settings, whole, type(model).__name__, placement)
    chat_model = LocalChatModel(model, tokenizer, info, settings, metrics)
    _try_out(chat_model)
    log.info("answering with %s on %s, %s", info.architecture, info.device, info.dtype)
    return chat_model


def _read(name: str, files: ModelFiles, placement: Placement) -> tuple[Any, Any]:
    """The model and the tokenizer in `files`, on the CPU."""
    gguf: dict[str, Any] = {"gguf_file": files.gguf_file} if files.gguf_file else {}
    with loading(name, files.folder):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=False, **gguf
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            files.folder,
            dtype=placement.dtype,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **(gguf or {"use_safetensors": True}),
        )
    model, report = loaded
    check_tensors(name, report["missing_keys"])
    return model, tokenizer


def _read_converted(
    settings: ModelServerSettings,
    files: ModelFiles,
    digest: str,
    placement: Placement,
    cache: Path,
) -> tuple[Any, Any]:
    """The model of a GGUF file, from `cache`; put there if it is not, or is damaged."""
    if converted := find_converted(cache, digest, settings.dtype):
        try:
            return _read(settings.model, ModelFiles(converted, None), placement)
        except ModelMissing as error:
            log.warning("%s is damaged and is made anew: %s", converted, error.message)
            shutil.rmtree(converted, ignore_errors=True)
    model, tokenizer = _read(settings.model, files, placement)
    keep_converted(cache, digest, settings.dtype, functools.partial(_write, model, tokenizer))
    return model, tokenizer


def _write(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a model that came from a GGUF file as plain tensors.

    `save_pretrained` refuses it, since its configuration still calls it quantized.
    """
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: of the model's configuration and of its tokenizer."""
    found: set[int] = set()
    for ids in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        found |= set(ids if isinstance(ids, (list, tuple)) else () if ids is None else (ids,))
    return frozenset(found)


def _line_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens with a line break in them."""
    texts = tokenizer.batch_decode([[number] for number in range(len(tokenizer))])
    return frozenset(number for number, text in enumerate(texts) if "\n" in text)


def _try_out(model: LocalChatModel) -> None:
    """A model that cannot answer fails here, not in the first job; it also warms the device up."""
    call = ChatCall((Message("user", "Hello"),), 0, 0.0, 1, 0)
    try:
        item = model._prepare(call)
        if isinstance(item, DndError):
            raise item
        model._generate(item.bucket, [item])
    except Exception as error:
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelMissing(
            f"{model.info.name} ({model.info.architecture}) does not answer a chat: {detail}"
        ) from error
