"""Whether a label agrees with the class name of a classifier's unit. For display only.

The rule, generous on purpose and printed with every report: the label shares a word with the class
name or with one of its synonyms (separated by commas). Words are compared in lower case without
their plural ending; words that say little by themselves (articles, colours, sizes) do not count. No
stage of the method ever sees a class name.
"""

from __future__ import annotations

import re

_SAYS_LITTLE = frozenset(
    [
        *("a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"),
        *("black", "blue", "brown", "golden", "gray", "green", "grey", "orange", "pink", "purple"),
        *("red", "white", "yellow", "big", "common", "giant", "great", "greater", "large"),
        *("lesser", "little", "long", "short", "small"),
    ]
)


def is_hit(label: str, class_name: str) -> bool:
    """Whether `label` shares a telling word with `class_name`, "tabby, tabby cat" for example."""
    return bool(_words(label) & _words(class_name))


def _words(text: str) -> frozenset[str]:
    words = {_singular(word) for word in re.findall(r"[^\W\d_]+", text.lower())}
    return frozenset(word for word in words if len(word) > 1 and word not in _SAYS_LITTLE)


def _singular(word: str) -> str:
    """`word` without a regular plural ending; a rule of thumb, the same for both sides."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
