"""What a stack can label when nobody has said: the starter pack's network and emoji images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from dnd.errors import ModelMissing
from dnd.serving.weights import has_pack
from dnd.stack.config import StackConfig
from dnd.stack.home import Home

EMOJI_IMAGES = "2000"
JUDGE_PROBE = "emoji-judge"
"""Emoji in a style that no model of the pack has seen: for `dnd evaluate --probe` only."""

_JUDGE_MODULE = "dnd_packs.starter.judge_probe"

_MODELS = """\
# Networks that jobs may name: see services/activations/README.md.
models:
  efficientnet_lite0: {spec: "python:dnd_services.activations.targets.efficientnet_lite0:load"}
"""
_PROBES = """\
# Probe sets that jobs may name; folders are relative to this file.
probes:
  openmoji: "imagefolder:probes/openmoji"
"""
_JUDGE_LINE = f"""\
  {JUDGE_PROBE}: "imagefolder:probes/{JUDGE_PROBE}" # judges labels, see docs/evaluation.md
"""


def models_file(home: Home) -> Path:
    """models.yaml of the home, written there if it is not."""
    return _default_file(home.path / "models.yaml", _MODELS)


def probes_file(home: Home) -> Path:
    """probes.yaml of the home, written there if it is not."""
    text = _PROBES + (_JUDGE_LINE if has_pack("pack:starter/judge_images") else "")
    return _default_file(home.path / "probes.yaml", text)


def with_names_of(home: Home, config: StackConfig) -> StackConfig:
    """The configuration with the models and probe sets that a home has names for, if it has."""
    models, probes = home.path / "models.yaml", home.path / "probes.yaml"
    return replace(
        config,
        models=config.models or (str(models) if models.exists() else ""),
        probes=config.probes or (str(probes) if probes.exists() else ""),
    )


def draw_emoji(home: Home, *, judged: bool) -> list[EmojiDrawing]:
    """Starts drawing the emoji of the default probes.yaml that are not there yet.

    Args:
        judged: The stack has a judge, which is shown emoji of its own.
    """
    drawings = [EmojiDrawing(home, "openmoji", "dnd_packs.starter.emoji_data", EMOJI_IMAGES)]
    if judged:
        drawings.append(EmojiDrawing(home, JUDGE_PROBE, _JUDGE_MODULE))
    return drawings


class EmojiDrawing:
    """Draws the emoji of one probe set beside the start, once for each home that names it.

    Args:
        home: Where they go; complete or not at all.
        name: Of the probe set.
        module: Draws them into the folder that is its first argument.
        arguments: More of them.
    """

    def __init__(self, home: Home, name: str, module: str, *arguments: str) -> None:
        self._home, self._name = home, name
        self._folder = home.path / "probes" / name
        self._draft = home.path / "probes" / f".draft-{name}"
        self._process: subprocess.Popen[bytes] | None = None
        if self._folder.is_dir() or f"probes/{name}" not in probes_file(home).read_text():
            return
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir(parents=True)
        with home.log(name).open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(self._draft / name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def is_done(self) -> bool:
        """Whether the emoji are there.

        Raises:
            ModelMissing: The packages that it takes are not installed.
        """
        if self._process is None:
            return True
        status = self._process.poll()
        if status is None:
            return False
        self._process = None
        if status:
            last = self._home.log_tail(self._name, 1)
            raise ModelMissing(
                f"The emoji of the probe set {self._name} cannot be drawn: {last} "
                f"(pip install 'describe-and-dissect[demo]', or take {self._name} out of "
                f"{self._home.path / 'probes.yaml'})."
            )
        for path in self._draft.glob("*.json"):
            path.replace(self._folder.parent / path.name)
        (self._draft / self._name).replace(self._folder)
        shutil.rmtree(self._draft, ignore_errors=True)
        return True

    def close(self) -> None:
        """Gives up what is not done yet."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _default_file(path: Path, text: str) -> Path:
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    return path
