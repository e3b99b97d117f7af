"""Generates src/dnd/v1 from protos/; with --check only says whether the committed is current."""

from __future__ import annotations

import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "src"


def generate(target: Path) -> list[Path]:
    """Writes the stubs below `target` and returns their paths relative to it."""
    protos = sorted((ROOT / "protos").rglob("*.proto"))
    plugins = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
        f"--mypy_grpc_out=quiet:{target}",
        *map(str, protos),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    (target / "dnd/v1/__init__.py").write_text(
        '"""Generated from protos/dnd/v1 by `make proto`; never edited."""\n'
    )
    return sorted(
        path.relative_to(target) for path in (target / "dnd/v1").glob("*.py*") if path.is_file()
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        names = generate(fresh)
        if "--check" in sys.argv[1:]:
            stale = [
                str(name)
                for name in names
                if not (TARGET / name).exists()
                or not filecmp.cmp(fresh / name, TARGET / name, shallow=False)
            ]
            if stale:
                print(f"stale: {', '.join(stale)}; run `make proto`", file=sys.stderr)
            return bool(stale)
        for name in names:
            (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(fresh / name, TARGET / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
