"""What an export archive may hold, all of it: anything else may run code when torch loads it.

`torch.export.load` unpickles some parts of an archive, evaluates its symbolic expressions as
Python, resolves any dotted name below torch, and loads compiled libraries. None of that is needed
for a network of plain tensors and known operations, so nothing else passes here.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

from dnd.errors import InvalidInput, UnsafeModelFile

PROGRAM = "models/model.json"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
PLAIN = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_(format|version)")
_DROPPED = re.compile(r"extra/.*|\.data/.*|byteorder|version|data/sample_inputs/model\.pt")
_MAXPROGRAM_BYTES = 256 * 2**20

_OPERATORS = "add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|getitem|and_|or_|not_"
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+"
    r"|torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast)"
    rf"|_operator\.({_OPERATORS})|math\.(ceil|floor|trunc|sqrt|pow)"
    r"|torch\.sym_(float|int|max|min|not|ite|sqrt)"
)
_NAME = re.compile(r"[\w.\-@]*")
_SYMBOL = re.compile(r"'[a-z]+\d+'|\b[a-z]+\d+\b")
_WORD = re.compile(r"[A-Za-z_]\w*")
_EXPRESSION = re.compile(r"[\w\s'(),.<>=+*/%-]*")
_WORDS = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|(Python)?Mod|(Floor|Clean|Ceil|IntTrue)Div"
    r"|ModularIndexing|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|(Une|E)quality|(Strict)?(Less|Greater)Than"
    r"|[Tt]rue|[Ff]alse|(int_)?oo|(non)?(posi|nega)tive|integer|real|finite|(non)?zero|precision"
)
_FREE = ("as_string", "as_strings", "stack_trace", "torch_version")
_SPECS = ("builtins.tuple", "builtins.list", "builtins.dict", None)
_STACK = re.compile(r"[^\"'\\\n]*")


def list_records(archive: zipfile.ZipFile, location: str) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their path below its one folder; each is of a kind listed here."""
    records: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        _, _, name = info.filename.partition("/")
        if name in records:
            raise UnsafeModelFile(
                f"'export:{location}' has {name!r} twice: it has been tampered with."
            )
        records[name] = info
    if "archive_format" not in records or PROGRAM not in records:
        raise InvalidInput(
            f"'export:{location}' is no archive of torch.export.save: expected {PROGRAM} in it. "
            "Weights alone (torch.save) and TorchScript have no layers that could be found."
        )
    for name in records:
        known = name in (PROGRAM, *CONFIGS) or PLAIN.fullmatch(name) or _DROPPED.fullmatch(name)
        if not known:
            raise UnsafeModelFile(
                f"'export:{location}' holds {name!r}: expected a graph and plain tensors, since "
                "pickled objects and compiled libraries run code when they are loaded."
            )
    return records


def check_payloads(config: Any, location: str) -> None:
    """Refuses tensors that are pickled."""
    for name, payload in config.get("config", {}).items():
        path = str(payload.get("path_name"))
        if payload.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", path):
            raise UnsafeModelFile(
                f"'export:{location}' has {name!r} as a pickle ({path}): reading it would run code "
                "from it. Export the network with plain tensors alone."
            )


def check_program(program: Any, location: str) -> None:
    """Refuses what is evaluated or looked up by name and is not known to be harmless."""

    def refuse(what: str, text: Any) -> None:
        raise UnsafeModelFile(
            f"'export:{location}': its graph has {what} {str(text)[:100]!r}, which is none that is "
            "known to be harmless. Load the network by a 'python:' factory of yours."
        )

    def check(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                if not _NAME.fullmatch(name):
                    refuse("a name", name)
                if name != "metadata":
                    check(name, one)
                elif not _STACK.fullmatch(str((one or {}).get("nn_module_stack", ""))):
                    refuse("modules", one["nn_module_stack"])
        elif isinstance(value, list):
            for one in value:
                check(key, one)
        elif isinstance(value, str):
            rule = rules.get(key, _is_name)
            if key not in _FREE and not rule(value):
                refuse(kinds.get(key, "a name"), value)

    rules: dict[str, Callable[[str], bool]] = {
        "target": lambda text: bool(_TARGET.fullmatch(text)),
        "expr_str": _is_expression,
        "in_spec": _is_plain_spec,
        "out_spec": _is_plain_spec,
        "guards_code": lambda text: False,
    }
    kinds = {"target": "an operation", "expr_str": "an expression", "guards_code": "a guard"}
    kinds |= {"in_spec": "a structure", "out_spec": "a structure"}
    check("", program)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text))


def _is_expression(text: str) -> bool:
    """Whether it is arithmetic on sizes: symbols, numbers, and functions that are listed."""
    rest = _SYMBOL.sub("0", text)
    return (
        bool(_EXPRESSION.fullmatch(text))
        and "'" not in rest
        and all(map(_WORDS.fullmatch, _WORD.findall(rest)))
    )


def _is_plain_spec(text: str) -> bool:
    """Whether a structure of inputs or outputs is of tuples, lists and dictionaries alone."""

    def plain(spec: Any) -> bool:
        kind, context = spec["type"], spec["context"]
        keys = json.loads(context) if isinstance(context, str) else context
        named = keys is None or (
            isinstance(keys, list) and all(isinstance(k, str) and _is_name(k) for k in keys)
        )
        return kind in _SPECS and named and all(map(plain, spec["children_spec"]))

    if not text:
        return True
    try:
        return plain(json.loads(text)[1])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False
