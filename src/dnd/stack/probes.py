"""What a stack can label when nobody has said: the starter pack's network and emoji images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from dnd.errors import ModelMissing
from dnd.stack.home import Home

EMOJI_IMAGES = "2000"

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


def models_file(home: Home) -> Path:
    """models.yaml of the home, written there if it is not."""
    return _default_file(home.path / "models.yaml", _MODELS)


def probes_file(home: Home) -> Path:
    """probes.yaml of the home, written there if it is not."""
    return _default_file(home.path / "probes.yaml", _PROBES)


class EmojiDrawing:
    """Draws the emoji of the default probes.yaml beside the start, once for each home.

    Args:
        home: Where they go; complete or not at all.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.path / "probes" / "openmoji"
        self._draft = home.path / "probes" / ".draft"
        self._process: subprocess.Popen[bytes] | None = None
        if self._folder.is_dir() or "probes/openmoji" not in probes_file(home).read_text():
            return
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir(parents=True)
        module = "dnd_packs.starter.emoji_data"
        with home.log("emoji").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(self._draft / "openmoji"), EMOJI_IMAGES],
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
            last = self._home.log_tail("emoji", 1)
            raise ModelMissing(
                f"The emoji of the probe set openmoji cannot be drawn: {last} "
                "(pip install 'describe-and-dissect[demo]', or take openmoji out of "
                f"{self._home.path / 'probes.yaml'})."
            )
        for path in self._draft.glob("*.json"):
            path.replace(self._folder.parent / path.name)
        (self._draft / "openmoji").replace(self._folder)
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
