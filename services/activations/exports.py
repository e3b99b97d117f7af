"""`export:`: archives of `torch.export.save`, unflattened so that every layer is there again.

An archive is taken apart first, its parts are checked (`export_checks.py`), and only what was
checked is handed to torch, as a new archive.
"""

from __future__ import annotations

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from dnd.errors import InvalidInput, UnknownName, suggest
from dnd_services.activations.export_checks import (
    CONFIGS,
    PLAIN,
    PROGRAM,
    check_payloads,
    check_program,
    list_records,
)
from dnd_services.activations.preprocessing import Preprocessing
from dnd_services.activations.targets import Target

EXTRA = "preprocessing.json"
_INPUTS = "data/sample_inputs/model.pt"
_MAX_PROGRAM_BYTES = 256 * 2**20
_KEYS = ("size", "shortest_edge", "mean", "std", "scale", "resample", "unit_names")


def load_export(location: str) -> Target:
    """An archive of `torch.export.save` with `preprocessing.json` in it, or beside it.

    Raises:
        UnknownName: There is no such file.
        UnsafeModelFile: It holds something that would run code when it is loaded.
        InvalidInput: It is no such archive, not of a network that takes a batch of pictures, or
            nothing says how that sees a picture.
    """
    path = Path(location).expanduser()
    if not path.is_file():
        raise UnknownName(f"'export:{location}': there is no such file.")
    with _open_archive(path, location) as archive:
        records = list_records(archive, location)
        program = _read_json(archive, records, PROGRAM, location)
        check_program(program, location)
        for name in CONFIGS:
            check_payloads(_read_json(archive, records, name, location), location)
        size = _find_input(program["graph_module"], location)
        preprocessing, unit_names = _read_preprocessing(archive, records, path, location, size)
        module = _load_program(archive, records, program)
    if not any(name for name, _ in module.named_modules()):
        raise InvalidInput(
            f"'export:{location}' has no modules, and so no layers that could be read: export the "
            "network itself, not a function or a graph of it."
        )
    return Target(module, preprocessing, unit_names)


@contextmanager
def _open_archive(path: Path, location: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        if not isinstance(error, zipfile.BadZipFile) and zipfile.is_zipfile(path):
            raise
        raise InvalidInput(
            f"'export:{location}' is no archive of torch.export.save, or damaged: {error}."
        ) from None


def _read_json(
    archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], name: str, location: str
) -> Any:
    if name not in records:
        raise InvalidInput(f"'export:{location}' is incomplete: {name} is not in it.")
    if records[name].file_size > _MAX_PROGRAM_BYTES:
        raise InvalidInput(f"'export:{location}': {name} has {records[name].file_size} bytes.")
    try:
        return json.loads(archive.read(records[name]))
    except ValueError as error:
        raise InvalidInput(f"'export:{location}': {name} is no JSON: {error}.") from None


def _find_input(graph_module: Any, location: str) -> tuple[int, int] | None:
    """Height and width of the pictures that the graph takes; None if they are free.

    Raises:
        InvalidInput: It takes anything else than a batch of pictures, or was exported in training.
    """
    specs = graph_module["signature"]["input_specs"]
    asked = [spec["user_input"]["arg"] for spec in specs if "user_input" in spec]
    tensors = [arg["as_tensor"]["name"] for arg in asked if "as_tensor" in arg]
    if len(asked) != 1 or len(tensors) != 1:
        raise InvalidInput(
            f"'export:{location}' takes {len(asked)} inputs: expected one, a batch of pictures "
            "(images, 3, height, width)."
        )
    for node in graph_module["graph"]["nodes"]:
        for given in node["inputs"]:
            if given["name"] in ("train", "training") and given["arg"].get("as_bool"):
                raise InvalidInput(
                    f"'export:{location}' was exported in training mode ({node['target']}), which "
                    "cannot be changed any more: call .eval() on the network, then export it."
                )
    sizes = graph_module["graph"]["tensor_values"][tensors[0]]["sizes"]
    fixed = [size.get("as_int") for size in sizes]
    if len(fixed) != 4 or fixed[1] != 3:
        shown = tuple("?" if size is None else size for size in fixed)
        raise InvalidInput(
            f"'export:{location}' takes {shown}: expected pictures (images, 3, height, width)."
        )
    if fixed[0] is not None:
        raise InvalidInput(
            f"'export:{location}' takes batches of {fixed[0]} only: export it with "
            "dynamic_shapes=({0: torch.export.Dim('images', min=1)},) and an example of two."
        )
    return None if None in fixed[2:] else (fixed[2], fixed[3])


def _read_preprocessing(
    archive: zipfile.ZipFile,
    records: dict[str, zipfile.ZipInfo],
    path: Path,
    location: str,
    size: tuple[int, int] | None,
) -> tuple[Preprocessing, tuple[str, ...]]:
    beside = path.with_suffix(f".{EXTRA}")
    where = f"{EXTRA} of 'export:{location}'"
    if f"extra/{EXTRA}" in records:
        found = _read_json(archive, records, f"extra/{EXTRA}", location)
    elif beside.is_file():
        try:
            found = json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InvalidInput(f"{beside} is no JSON: {error}.") from None
    else:
        raise InvalidInput(
            f"Nothing says how 'export:{location}' sees a picture: save it with extra_files="
            f"{{'{EXTRA}': json.dumps({{'size': [224, 224], 'shortest_edge': 256, …}})}}, or put "
            f"{beside.name} beside it. Keys: {', '.join(_KEYS)}."
        )
    if not isinstance(found, dict):
        raise InvalidInput(f"{where}: expected a mapping with the keys {', '.join(_KEYS)}.")
    for key in found:
        if key not in _KEYS:
            raise InvalidInput(f"{where}: {suggest(key, list(_KEYS), what='key')}")
    names = tuple(map(str, found.pop("unit_names", ())))
    if "size" not in found and size is not None:
        found["size"] = size
    try:
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        }
        preprocessing = Preprocessing(**given)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: {error}.") from None
    if size is not None and tuple(preprocessing.size) != size:
        raise InvalidInput(
            f"{where}: size = {preprocessing.size}, but the graph takes pictures of {size}."
        )
    return preprocessing, names


def _load_program(
    archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo], program: Any
) -> torch.nn.Module:
    """Writes what was checked into an archive of its own, and loads that."""
    inputs = io.BytesIO()
    torch.save(((), {}), inputs)
    with tempfile.NamedTemporaryFile(suffix=".pt2") as file:
        with zipfile.ZipFile(file, "w") as clean:
            for name, info in records.items():
                if name in CONFIGS or PLAIN.fullmatch(name):
                    clean.writestr(str(PurePosixPath("network", name)), archive.read(info))
            clean.writestr(f"network/{PROGRAM}", json.dumps(program))
            clean.writestr(f"network/{_INPUTS}", inputs.getvalue())
            clean.writestr("network/byteorder", "little")
            clean.writestr("network/.data/version", "3\n")
        file.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return torch.export.unflatten(torch.export.load(file.name))
