"""Words of captions: the commonest phrases, and when two phrases say the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from dnd.serving.answers import MAX_WORDS, clean_text

MAX_PHRASE_WORDS = 3
MIN_CAPTIONS = 2

ARTICLES = frozenset({"a", "an", "the"})

# Words that a phrase is never made of: function words, counts, and words about the picture itself.
_FUNCTION_WORDS = """
    about above across after against all along also am and another any are around as at away back
    be because been before behind being below beneath beside between both but by can close closeup
    do does down each few for from front full has have having he her here him his holding in inside
    into is it its itself just lots made many more most mostly much near next no not of off on one
    onto or other out outside over own part piece really she showing shown shows side sitting so
    some something standing such that their them then there these they thing things this those three
    through to together top toward towards two under up upon us very was wearing were what where
    which while who whose with within without you your
    background drawing graphic icon illustration image images photo photograph picture pictures
    view
"""
_SKIPPED = ARTICLES | frozenset(_FUNCTION_WORDS.split())

_IRREGULAR = {
    "buses": "bus",
    "children": "child",
    "clothes": "clothes",
    "feet": "foot",
    "geese": "goose",
    "glasses": "glasses",
    "halves": "half",
    "knives": "knife",
    "leaves": "leaf",
    "lens": "lens",
    "loaves": "loaf",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "shelves": "shelf",
    "shoes": "shoe",
    "teeth": "tooth",
    "wolves": "wolf",
    "women": "woman",
}

_BACKGROUND = re.compile(r"\b[^\W_]+ background\b")

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def drop_article(text: str) -> str:
    """`text` without an article in front of it."""
    first, _, rest = text.partition(" ")
    return rest if rest and first in ARTICLES else text


def phrase_key(text: str) -> tuple[str, ...]:
    """Equal for texts that differ only in number, articles and the order of words."""
    words = [word for word in _WORD.findall(text.lower()) if word not in ARTICLES]
    return tuple(sorted(map(singular, words))) or (text,)


def singular(word: str) -> str:
    """An English noun in its singular, as far as its ending tells."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return word[:-2]
    return word[:-1]


def leading_phrases(captions: Sequence[str], num: int) -> list[str]:
    """What captions say before their first comma, of the first `num` that are a label's length.

    Args:
        captions: Highest activation first.
    """
    found = [drop_article(clean_text(caption.split(",")[0])) for caption in captions]
    return [text for text in found if text and len(text.split()) <= MAX_WORDS][:num]


def common_phrases(captions: Sequence[str], num: int) -> list[str]:
    """The `num` phrases of one to three words that most captions share.

    Ordered by the number of captions they are in, then longer ones first, then by the first place
    they are seen at. Number does not matter; the form is the commonest one. A phrase that stands
    in two captions or more counts, and a part of a longer one only if it stands in more captions.
    """
    seen: dict[tuple[str, ...], set[int]] = {}
    forms: dict[tuple[str, ...], Counter[str]] = {}
    for place, caption in enumerate(captions):
        for words in _runs(caption):
            key = tuple(map(singular, words))
            seen.setdefault(key, set()).add(place)
            forms.setdefault(key, Counter())[" ".join(words)] += 1
    first_seen = {key: number for number, key in enumerate(seen)}
    ranked = sorted(
        (key for key, places in seen.items() if len(places) >= MIN_CAPTIONS),
        key=lambda key: (-len(seen[key]), -len(key), first_seen[key]),
    )
    kept: list[tuple[str, ...]] = []
    for key in ranked:
        if not any(_is_part(key, other) and seen[key] <= seen[other] for other in kept):
            kept.append(key)
    return [forms[key].most_common(1)[0][0] for key in kept[:num]]


def _runs(caption: str) -> Iterator[list[str]]:
    """All runs of one to three words of a caption without a word that is skipped."""
    words = _WORD.findall(_BACKGROUND.sub("background", caption.lower()))
    for start in range(len(words)):
        for end in range(start + 1, min(start + MAX_PHRASE_WORDS, len(words)) + 1):
            if words[end - 1] in _SKIPPED or not words[end - 1][0].isalpha():
                break
            yield words[start:end]


def _is_part(key: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return any(other[start : start + len(key)] == key for start in range(len(other) - len(key) + 1))
