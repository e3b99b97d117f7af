"""DnD step 2, second half: the calls of the language model that a unit's candidates take.

All units of a request go through the same rounds together: simplified captions where the settings
ask for them, then summaries, then lists merged to one label where the prompt set does that. A round
is one batch for the model. What may succeed later is an error of the unit, not a missing answer, so
that trying again gives the result of an undisturbed run; nonsense is a missing answer, and a unit
goes on with what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from dnd import keys
from dnd.errors import BadAnswer, DndError, Kind, kind_of
from dnd.profiles import ProposeSettings
from dnd.serving.answers import (
    Dropped,
    Label,
    listed_labels,
    parse_caption,
    parse_label,
    parse_labels,
)
from dnd.types import OrError, Proposal, RequestContext, TokenUse, UnitCaptions
from dnd_services.summarizer.llm import ChatAnswer, ChatCall, ChatModel
from dnd_services.summarizer.pool import build_pool
from dnd_services.summarizer.prompting import PromptSet, number_lines, tidy_caption

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Asked:
    """One call on behalf of a unit: which prompt, filled with what, and its seed."""

    kind: str
    number: int
    values: dict[str, str]


@dataclass
class _Unit:
    """A unit on its way through the rounds."""

    seed: int
    captions: list[str]
    contrast: list[str]
    shown: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    tokens: TokenUse = field(default_factory=TokenUse)
    error: DndError | None = None

    def count(self, answer: OrError[ChatAnswer]) -> None:
        """Adds what a call cost; an answer that cannot be used has been paid for too."""
        good = answer if isinstance(answer, ChatAnswer) else ChatAnswer("", 0, 0)
        self.tokens = TokenUse(
            self.tokens.num_calls + 1,
            self.tokens.num_input_tokens + good.num_input_tokens,
            self.tokens.num_output_tokens + good.num_output_tokens,
        )


@dataclass(frozen=True)
class Proposer:
    """Proposes candidates with one language model.

    Attributes:
        model: The language model.
        prompts: The prompt set.
        settings: Which calls are made.
        context: Who asks.
        timeout_s: The caller's time for all rounds together, seconds; None without a limit.
    """

    model: ChatModel
    prompts: PromptSet
    settings: ProposeSettings
    context: RequestContext
    timeout_s: float | None = None

    async def propose(self, asked: Sequence[UnitCaptions]) -> list[OrError[Proposal]]:
        """The candidate pool of each unit, or why it has none, in order.

        Raises:
            BadSetting: The prompt set has no prompt for a call that the settings ask for.
            Overloaded, RequestTooLarge, Unavailable: The model took none of the calls.
        """
        until = None if self.timeout_s is None else _now() + self.timeout_s
        units = [
            _Unit(
                one.seed,
                [tidy_caption(text) for text in one.captions],
                [tidy_caption(text) for text in one.contrast],
            )
            for one in asked
        ]
        for unit in units:
            unit.shown = unit.captions
            for kind in self._kinds(unit):
                self.prompts.get(kind)
        if self.settings.simplify:
            await self._simplify(units, until)
        answers = await self._summarize(units, until)
        if "merge" in self.prompts.prompts and not self.settings.one_call:
            answers = await self._merge(units, answers, until)
        for unit, texts in zip(units, answers, strict=True):
            unit.labels = self._read(unit, texts)
        return [self._settle(unit, one) for unit, one in zip(units, asked, strict=True)]

    def _kinds(self, unit: _Unit) -> list[str]:
        summary = self._summary(unit)
        return ["simplify", summary] if self.settings.simplify else [summary]

    def _summary(self, unit: _Unit) -> str:
        """The kind of a unit's summary calls."""
        kind = "several" if self.settings.one_call else "summary"
        return f"{kind}_contrast" if unit.contrast else kind

    async def _simplify(self, units: Sequence[_Unit], until: float | None) -> None:
        """A simpler caption for each; one whose answer is no use stays as it was."""
        calls = [
            [_Asked("simplify", n, {"caption": text}) for n, text in enumerate(unit.captions)]
            for unit in units
        ]
        for unit, answers in zip(units, await self._ask(units, calls, until), strict=True):
            unit.shown = [
                (parse_caption(answer.text) if isinstance(answer, ChatAnswer) else "") or caption
                for answer, caption in zip(answers, unit.captions, strict=True)
            ] or unit.captions

    async def _summarize(
        self, units: Sequence[_Unit], until: float | None
    ) -> list[list[OrError[ChatAnswer]]]:
        num_calls = 1 if self.settings.one_call else self.settings.num_summaries
        calls = [
            [
                _Asked(
                    self._summary(unit),
                    n,
                    {
                        "captions": number_lines(shuffled(unit.shown, unit.seed, n)),
                        "contrast": number_lines(unit.contrast),
                        "num": str(self.settings.num_summaries),
                    },
                )
                for n in range(num_calls)
            ]
            for unit in units
        ]
        return await self._ask(units, calls, until)

    async def _merge(
        self,
        units: Sequence[_Unit],
        answers: Sequence[Sequence[OrError[ChatAnswer]]],
        until: float | None,
    ) -> list[list[OrError[ChatAnswer]]]:
        """Answers that list several things, asked for again as one label."""
        lists = [
            {
                n: listed
                for n, answer in enumerate(of_unit)
                if isinstance(answer, ChatAnswer) and len(listed := listed_labels(answer.text)) > 1
            }
            for of_unit in answers
        ]
        calls = [
            [_Asked("merge", n, {"labels": ", ".join(listed)}) for n, listed in of_unit.items()]
            for of_unit in lists
        ]
        merged = await self._ask(units, calls, until)
        results = [list(of_unit) for of_unit in answers]
        for result, listed_of, again in zip(results, lists, merged, strict=True):
            for n, answer in zip(listed_of, again, strict=False):
                result[n] = answer
        return results

    async def _ask(
        self,
        units: Sequence[_Unit],
        calls: Sequence[Sequence[_Asked]],
        until: float | None,
    ) -> list[list[OrError[ChatAnswer]]]:
        """One round; the answers of each unit, none for a unit that has failed before."""
        live = [
            (unit, one)
            for unit, of_unit in zip(units, calls, strict=True)
            if unit.error is None
            for one in of_unit
        ]
        if not live:
            return [[] for _ in units]
        answers = await self.model.complete(
            [self._call(unit, one) for unit, one in live],
            context=self.context,
            timeout_s=None if until is None else max(0.0, until - _now()),
        )
        results: dict[int, list[OrError[ChatAnswer]]] = {id(unit): [] for unit in units}
        for (unit, _), answer in zip(live, answers, strict=True):
            unit.count(answer)
            results[id(unit)].append(answer)
            if isinstance(answer, DndError) and kind_of(answer) is not Kind.ITEM:
                unit.error = unit.error or answer
        return [results[id(unit)] for unit in units]

    def _call(self, unit: _Unit, asked: _Asked) -> ChatCall:
        prompt = self.prompts.get(asked.kind)
        return ChatCall(
            messages=prompt.fill(asked.values),
            num_shared=prompt.num_shared,
            temperature=self.settings.temperature,
            max_tokens=prompt.max_tokens,
            seed=keys.call_seed(unit.seed, asked.kind, asked.number),
            one_line=not asked.kind.startswith("several"),
        )

    def _read(self, unit: _Unit, answers: Sequence[OrError[ChatAnswer]]) -> list[Label]:
        instructions = self.prompts.get(self._summary(unit)).instructions
        labels: list[Label] = []
        for answer in answers:
            if isinstance(answer, DndError):
                labels.append(Dropped("", answer.message))
            elif self.settings.one_call:
                labels += parse_labels(
                    answer.text, finished=answer.finished, instructions=instructions
                )[: self.settings.num_summaries]
            else:
                labels.append(
                    parse_label(answer.text, finished=answer.finished, instructions=instructions)
                )
        return labels

    def _settle(self, unit: _Unit, asked: UnitCaptions) -> OrError[Proposal]:
        """The unit's pool; other candidates never stand in for the language model's."""
        if unit.error is not None:
            return unit.error
        pool = build_pool(unit.labels, unit.captions, asked.candidates, self.settings)
        for one in pool.dropped:
            log.debug("dropped %r: %s", one.text, one.reason)
        if not pool.has_summary:
            reasons = "; ".join(
                dict.fromkeys(
                    f"{one.text!r}: {one.reason}" for one in unit.labels if isinstance(one, Dropped)
                )
            )
            return BadAnswer(
                f"No answer of the language model was a label ({reasons[:400] or 'no answer'}). "
                "Try another seed, or a larger language model."
            )
        return Proposal(pool.candidates, unit.tokens)


def shuffled(captions: Sequence[str], seed: int, number: int) -> list[str]:
    """The captions in order of activation for call 0, in an order of its own for every other."""
    if number == 0:
        return list(captions)
    order = sorted(range(len(captions)), key=lambda n: keys.call_seed(seed, "order", number, n))
    return [captions[n] for n in order]


def _now() -> float:
    return asyncio.get_running_loop().time()
