"""Prompt files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnd.errors import BadSetting, UnknownName
from dnd.profiles import PROFILES
from dnd_services.summarizer.prompting import (
    MAX_CAPTION_CHARACTERS,
    PLACEHOLDERS,
    PromptSets,
    load_prompt_sets,
    tidy_caption,
)

GOOD = "max_tokens: 5\n\n[system]\nName it.\n\n[user]\n{captions}\n"


def write(folder: Path, text: str, file: str = "summary.txt") -> Path:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / file).write_text(text)
    return folder


def test_built_in_sets_serve_the_profiles(prompts: PromptSets) -> None:
    assert set(prompts.sets) == {"general", "land_cover", "paper"}
    for profile in PROFILES.values():
        chosen = prompts.get(profile.propose.prompt_set)
        assert chosen.get("summary").num_shared >= 3
        if profile.propose.simplify:
            assert chosen.get("simplify")
    for name in ("general", "land_cover"):
        assert {"summary", "several", "simplify"} <= set(prompts.get(name).prompts)
    assert {"summary_contrast", "several_contrast"} <= set(prompts.get("general").prompts)
    assert "merge" in prompts.get("paper").prompts


def test_prompt_is_filled_once_and_its_examples_are_shared(prompts: PromptSets) -> None:
    prompt = prompts.get("general").get("summary")
    one = prompt.fill({"captions": "1. a {num} {captions}"})
    other = prompt.fill({"captions": "1. another"})
    assert one[-1].content == "Captions:\n1. a {num} {captions}\nLabel:"
    assert one[: prompt.num_shared] == other[: prompt.num_shared]
    assert prompt.instructions.startswith("You are given captions of pictures.")


def test_set_of_ones_own_stands_beside_the_built_in_ones(tmp_path: Path) -> None:
    sets = load_prompt_sets(write(tmp_path, GOOD))
    assert sets.get("mine").get("summary").max_tokens == 5
    assert sets.get("general")


def test_digest_changes_with_a_word_and_with_a_limit(tmp_path: Path) -> None:
    digests = {load_prompt_sets().digest}
    for text in (GOOD, GOOD.replace("it", "that"), GOOD.replace("5", "6")):
        digests.add(load_prompt_sets(write(tmp_path, text)).digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("text", "file", "message"),
    [
        (GOOD, "sumary.txt", "Did you mean 'summary'"),
        (GOOD.removeprefix("max_tokens: 5"), "summary.txt", "first line must be 'max_tokens: N'"),
        (GOOD.replace("5", "0"), "summary.txt", "first line must be 'max_tokens: N'"),
        ("max_tokens: 5\nName it: {captions}", "summary.txt", "expected turns below"),
        (GOOD + "[assistant]\nbird\n", "summary.txt", "must alternate"),
        (GOOD + "[system]\nbird\n", "summary.txt", "expected turns below"),
        (GOOD.replace("{captions}", "it"), "summary.txt", r"no placeholder: expected \{captions\}"),
        (GOOD, "several.txt", r"expected \{captions\} and \{num\}"),
    ],
)
def test_bad_prompt_is_named_with_its_fault(
    tmp_path: Path, text: str, file: str, message: str
) -> None:
    with pytest.raises(BadSetting, match=message) as caught:
        load_prompt_sets(write(tmp_path, text, file))
    assert file in caught.value.message


def test_folder_of_a_built_in_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "general").mkdir()
    with pytest.raises(BadSetting, match="'general' is built in"):
        load_prompt_sets(tmp_path)
    with pytest.raises(BadSetting, match="no such folder"):
        load_prompt_sets(tmp_path / "nowhere")


def test_unknown_set_and_missing_kind_say_what_there_is(prompts: PromptSets) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'general'"):
        prompts.get("genral")
    with pytest.raises(BadSetting, match=r"no several prompt.*several\.txt"):
        prompts.get("paper").get("several")
    assert "several" in PLACEHOLDERS


def test_caption_becomes_one_short_line() -> None:
    assert tidy_caption("a\nred\x00 \u202ebird") == "a red bird"
    assert len(tidy_caption("bird " * 200)) == MAX_CAPTION_CHARACTERS
