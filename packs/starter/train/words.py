"""Plain English for emoji: what kind of thing each subgroup holds, and how captions are made."""

import re
import unicodedata

# subgroup -> (hypernym, wider class). Both become part of captions and of text conditions.
KINDS: dict[str, tuple[str, str]] = {
    "face-smiling": ("smiling face", "face"),
    "face-affection": ("loving face", "face"),
    "face-tongue": ("face with tongue out", "face"),
    "face-hand": ("face with a hand", "face"),
    "face-neutral-skeptical": ("doubtful face", "face"),
    "face-sleepy": ("sleepy face", "face"),
    "face-unwell": ("sick face", "face"),
    "face-hat": ("face with a hat", "face"),
    "face-glasses": ("face with glasses", "face"),
    "face-concerned": ("sad face", "face"),
    "face-negative": ("angry face", "face"),
    "face-costume": ("costume face", "face"),
    "cat-face": ("cat face", "animal"),
    "monkey-face": ("monkey face", "animal"),
    "heart": ("heart", "love symbol"),
    "emotion": ("comic symbol", "emotion"),
    "hand-fingers-open": ("open hand", "hand"),
    "hand-fingers-partial": ("hand sign", "hand"),
    "hand-single-finger": ("pointing finger", "hand"),
    "hand-fingers-closed": ("closed fist", "hand"),
    "hands": ("two hands", "hand"),
    "hand-prop": ("hand holding something", "hand"),
    "body-parts": ("body part", "body"),
    "person": ("person", "people"),
    "person-gesture": ("person making a gesture", "people"),
    "person-role": ("person at work", "people"),
    "person-fantasy": ("fantasy person", "people"),
    "person-activity": ("person doing something", "people"),
    "person-sport": ("person doing sport", "people"),
    "person-resting": ("person resting", "people"),
    "family": ("family", "people"),
    "person-symbol": ("outline of people", "people"),
    "animal-mammal": ("mammal", "animal"),
    "animal-bird": ("bird", "animal"),
    "animal-amphibian": ("amphibian", "animal"),
    "animal-reptile": ("reptile", "animal"),
    "animal-marine": ("sea animal", "animal"),
    "animal-bug": ("bug", "animal"),
    "plant-flower": ("flower", "plant"),
    "plant-other": ("plant", "nature"),
    "food-fruit": ("fruit", "food"),
    "food-vegetable": ("vegetable", "food"),
    "food-prepared": ("meal", "food"),
    "food-asian": ("asian dish", "food"),
    "food-sweet": ("dessert", "sweet food"),
    "drink": ("drink", "food and drink"),
    "dishware": ("tableware", "food and drink"),
    "place-map": ("map", "place"),
    "place-geographic": ("landscape", "place"),
    "place-building": ("building", "place"),
    "place-religious": ("religious building", "place"),
    "place-other": ("scenery", "place"),
    "transport-ground": ("land vehicle", "vehicle"),
    "transport-water": ("boat", "vehicle"),
    "transport-air": ("aircraft", "vehicle"),
    "hotel": ("hotel object", "object"),
    "time": ("clock", "time"),
    "sky-weather": ("weather", "sky"),
    "event": ("celebration", "activity"),
    "award-medal": ("award", "prize"),
    "sport": ("sport equipment", "sport"),
    "game": ("game", "toy"),
    "arts-crafts": ("art and craft", "art"),
    "clothing": ("clothing", "something to wear"),
    "sound": ("sound device", "sound"),
    "music": ("music", "sound"),
    "musical-instrument": ("musical instrument", "music"),
    "phone": ("phone", "device"),
    "computer": ("computer part", "device"),
    "light-video": ("light and film", "device"),
    "book-paper": ("book and paper", "reading"),
    "money": ("money", "finance"),
    "mail": ("mail", "post"),
    "writing": ("writing tool", "stationery"),
    "office": ("office supply", "stationery"),
    "lock": ("lock and key", "object"),
    "tool": ("tool", "object"),
    "science": ("science equipment", "object"),
    "medical": ("medicine", "health"),
    "household": ("household item", "object"),
    "other-object": ("object", "thing"),
    "transport-sign": ("public sign", "sign"),
    "warning": ("warning sign", "sign"),
    "arrow": ("arrow", "sign"),
    "religion": ("religious symbol", "symbol"),
    "zodiac": ("zodiac sign", "symbol"),
    "av-symbol": ("media button", "symbol"),
    "gender": ("gender symbol", "symbol"),
    "math": ("math symbol", "symbol"),
    "punctuation": ("punctuation mark", "symbol"),
    "currency": ("currency sign", "symbol"),
    "other-symbol": ("symbol", "sign"),
    "keycap": ("number key", "symbol"),
    "alphanum": ("letter button", "symbol"),
    "geometric": ("shape", "geometry"),
    "flag": ("flag", "banner"),
    "country-flag": ("country flag", "flag"),
    "subdivision-flag": ("regional flag", "flag"),
}

TEMPLATES = (
    "{}",
    "one realistic image of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
)
"""Templates of the text conditions; ``{}`` and the second are drawn more often (see texts.py)."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 45),
    "orange": (245, 145, 40),
    "yellow": (252, 210, 50),
    "green": (90, 165, 60),
    "blue": (65, 140, 220),
    "purple": (145, 80, 185),
    "pink": (245, 150, 190),
    "brown": (135, 85, 55),
    "black": (35, 35, 38),
    "gray": (145, 150, 155),
    "white": (245, 245, 245),
}

_PLURAL_EXCEPTIONS = ("ss", "us", "is", "bus", "cactus", "octopus", "tennis", "lens")
_NO_ARTICLE = {
    "mahjong",
    "money",
    "music",
    "mail",
    "clothing",
    "tableware",
    "scenery",
    "weather",
    "medicine",
    "people",
}


def clean_name(label: str) -> str:
    """Turn a CLDR label into lower-case words: ``"flag: France"`` gives ``"flag of france"``."""
    text = label.lower().replace("“", "").replace("”", "").replace("’", "'").replace("&", "and")
    if text.startswith("flag: "):
        text = "flag of " + text.removeprefix("flag: ")
    text = text.replace("keycap: ", "keycap ").replace("#", "number sign").replace("*", "asterisk")
    text = re.sub(r"\(([^)]*)\)", r"\1", text)
    text = re.sub(r"[:,.!]", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a countable singular phrase."""
    last = phrase.split(" of ")[0].split(" with ")[0].split()[-1]
    plural = last.endswith("s") and not last.endswith(_PLURAL_EXCEPTIONS)
    if (
        plural
        or last in _NO_ARTICLE
        or phrase.split()[0] in {"two", "a", "an", "the", "light", "something"}
    ):
        return phrase
    return ("an " if phrase[0] in "aeio" else "a ") + phrase


def caption(name: str, subgroup: str, colour: str | None = None) -> str:
    """The training caption: short name, what kind of thing, and the colour if one stands out."""
    hypernym, wider = KINDS[subgroup]
    parts = [with_article(name)]
    parts += [with_article(hypernym)] if hypernym != name else []
    parts += [wider] if wider not in (name, hypernym) and not hypernym.endswith(wider) else []
    if colour and colour not in name.split():
        parts.append(f"mostly {colour}")
    return plain_words(", ".join(parts))


def plain_words(text: str) -> str:
    """Drop accents, hyphens and apostrophes, so that WordPiece gives the text back unchanged."""
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", re.sub(r"[-/]", " ", text.replace("'", ""))).strip()
