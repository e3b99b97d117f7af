"""What the columns of a unit's candidates are called, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

ORIGINS = {
    "summary": ("summary", "The language model's summary of the captions"),
    "background": ("background", "The “… background” variant of a summary"),
    "caption": ("caption", "What the caption of an image that excites the unit most begins with"),
    "caption_phrase": ("phrase", "A phrase that many of the captions share"),
    "concept_set": ("concept set", "A label by CLIP-Dissect from a concept set"),
    "vision_language": ("vision model", "What a vision-language model named in all exemplars"),
}


METHODS = {"dnd": "Describe-and-Dissect", "clip-dissect": "CLIP-Dissect"}


@dataclass(frozen=True)
class Component:
    """One column of the table of scores; `sign` is +1 where higher is better."""

    key: str
    title: str
    meaning: str
    sign: int


COMPONENTS = (
    Component(
        "topk_squared_mean",
        "TopK rank²",
        "Mean of the squared ranks of its most activating drawings among all drawings of the unit. "
        "Lower is better.",
        -1,
    ),
    Component(
        "image_products",
        "Image product",
        "Mean CLIP cosine between the exemplars and its drawings that are among the ten most "
        "activating. Higher is better.",
        1,
    ),
    Component(
        "probe_correlation",
        "Probe corr.",
        "Correlation over the probe images between the unit's activation and CLIP's cosine to the "
        "concept. Higher is better.",
        1,
    ),
    Component(
        "topk_compare",
        "TopK compare",
        "The combination of TopK rank² and image product of the paper. Higher is better.",
        1,
    ),
    Component(
        "auc",
        "AUC",
        "Share of pairs in which its drawing excites the unit more than one of the unit's other "
        "candidates. 0.5 is chance.",
        1,
    ),
)
