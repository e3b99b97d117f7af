"""Generates docs/openapi.json from the routes of REST; with --check only says if it is current."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dnd_services.coordinator.web.app import openapi

TARGET = Path(__file__).parent.parent / "docs" / "openapi.json"


def main() -> int:
    text = json.dumps(openapi(), indent=1, sort_keys=True) + "\n"
    if "--check" in sys.argv[1:]:
        stale = not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text
        if stale:
            print(f"{TARGET.name} is stale; run `make docs`", file=sys.stderr)
        return int(stale)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
