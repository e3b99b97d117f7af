"""How well labels fit known concepts: MiniLM cosine and exact names, beside their nulls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dnd.evaluation.compare import Scores, Shuffling, compare_labels
from dnd.evaluation.sentences import load_sentence_encoder
from dnd.evaluation.simulation import Floats

METRIC = "minilm_cosine"


@dataclass(frozen=True)
class KnownUnit:
    """A unit with what it responds to.

    Attributes:
        truths: Names of its concepts; any of them is right.
        labels: Method to label; a method without one is missing.
        candidates: DnD's pool, in order.
    """

    layer: str
    unit: int
    truths: tuple[str, ...]
    labels: Mapping[str, str]
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One method on one set of units.

    Attributes:
        cosine: Mean cosine of label and truth.
        exact: Share of units whose label is the truth.
        differences: Null or other method to (difference, low, high, beats), paired over units.
    """

    method: str
    num_units: int
    cosine: float
    exact: float
    differences: Mapping[str, tuple[float, float, float, bool]] = field(default_factory=dict)


def compare_methods(units: Sequence[KnownUnit], baseline: str, seed: int = 0) -> list[Row]:
    """All methods on units that all of them labelled; differences: `baseline` minus the other."""
    methods = list(dict.fromkeys(name for unit in units for name in unit.labels))
    judged = [unit for unit in units if all(name in unit.labels for name in methods)]
    if not judged:
        return []
    space = _Space(judged)
    truth = np.stack([space.similarity(unit.truths) for unit in judged])  # (units, texts)
    layers = np.unique([unit.layer for unit in judged], return_inverse=True)[1].astype(np.intp)
    everyone = np.arange(len(judged), dtype=np.intp)
    values = {
        name: truth[everyone, space.places(unit.labels[name] for unit in judged)]
        for name in methods
    }
    columns = space.places(unit.labels[baseline] for unit in judged)
    produced = np.unique(columns)
    summary = compare_labels(
        Scores(
            METRIC,
            truth[:, produced],
            [row[space.places(u.candidates)] for row, u in zip(truth, judged, strict=True)],
        ),
        Shuffling.within(np.searchsorted(produced, columns), layers, seed),
        everyone,
        seed,
        {name: cosines for name, cosines in values.items() if name != baseline},
    )
    found = [
        Row(
            baseline,
            len(judged),
            float(summary["mean"]),
            _exact(judged, [unit.labels[baseline] for unit in judged]),
            {name: _difference(one) for name, one in summary["nulls"].items()},
        )
    ]
    for name, cosines in values.items():
        if name != baseline:
            labels = [unit.labels[name] for unit in judged]
            found.append(Row(name, len(judged), float(cosines.mean()), _exact(judged, labels)))
    found += [
        Row(name, len(judged), float(one["mean"]), float("nan"))
        for name, one in summary["nulls"].items()
        if name not in values
    ]
    return found


def nearest_cosines(labels: Sequence[str], truths: Sequence[Sequence[str]]) -> Floats:
    """Of each label to the nearest of its unit's truths, (labels,)."""
    texts = list(dict.fromkeys([*labels, *(name for names in truths for name in names)]))
    vectors = dict(zip(texts, load_sentence_encoder().embed(texts), strict=True))
    return np.array(
        [
            max(float(vectors[label] @ vectors[name]) for name in names)
            for label, names in zip(labels, truths, strict=True)
        ]
    )


class _Space:
    """Sentence embeddings of everything that is compared."""

    def __init__(self, units: Sequence[KnownUnit]) -> None:
        texts = [t for u in units for t in (*u.truths, *u.labels.values(), *u.candidates)]
        self._texts = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        self._vectors = load_sentence_encoder().embed(list(self._texts))

    def places(self, texts: Any) -> np.ndarray:
        return np.array([self._texts[text] for text in texts], np.intp)

    def similarity(self, truths: Sequence[str]) -> Floats:
        """Of every text to the nearest of the truths, (texts,)."""
        return np.asarray((self._vectors @ self._vectors[self.places(truths)].T).max(1))


def _difference(one: Mapping[str, Any]) -> tuple[float, float, float, bool]:
    low, high = one["interval"] or (float("nan"), float("nan"))
    return float(one["difference"]), low, high, bool(one["beats"])


def _exact(units: Sequence[KnownUnit], labels: Sequence[str]) -> float:
    """Share of labels that are one of the truths, articles left out."""
    hits = [
        _bare(label) in {_bare(truth) for truth in unit.truths}
        for unit, label in zip(units, labels, strict=True)
    ]
    return sum(hits) / len(hits)


def _bare(text: str) -> str:
    return re.sub(r"^(a|an|the) ", "", text.lower().strip())
