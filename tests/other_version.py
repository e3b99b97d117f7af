"""This project as its next version could be: protos with more in them, and stubs that use it.

Its modules lie in a folder of their own, to be put on PYTHONPATH. All but the stubs are those of
this version. Every answer carries a field that this version does not know, and so does the context
of every request.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent.parent
PROTOS = ROOT / "protos"
RELEASED = ROOT / "tests" / "released"
NEXT_FIELD = 1000
_ANSWER = bytes([0xC2, 0x3E, 1, ord("x")])  # field 1000: the string "x"


def write_next_protos(folder: Path) -> None:
    """The protos of this version, with fields, enum values and a method that it does not have."""
    for file in PROTOS.rglob("*.proto"):
        text = file.read_text()
        text = re.sub(
            r"^(message (?:\w+Response|RequestContext|JobSpec|Job|CaptionImagesRequest) \{)",
            rf"\1\n  string next_field = {NEXT_FIELD};",
            text,
            flags=re.MULTILINE,
        )
        text = re.sub(
            r"^(enum JobState \{\n(?:.*\n)*?)\}",
            r"\1  JOB_STATE_NEXT = 1000;\n}",
            text,
            flags=re.MULTILINE,
        )
        text = text.replace(
            "service CaptionerService {",
            "service CaptionerService {\n  rpc DescribeImages(DescribeImagesRequest)"
            " returns (DescribeImagesResponse);",
        )
        if file.name == "captioner.proto":
            text += "\nmessage DescribeImagesRequest {\n  RequestContext context = 1;\n}\n"
            text += "message DescribeImagesResponse {}\n"
        target = folder / file.relative_to(PROTOS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def generate(protos: Path, target: Path) -> None:
    """Stubs of the protos in a folder, as dnd.v1 below `target`."""
    arguments = [f"-I{protos}", f"--python_out={target}", f"--grpc_python_out={target}"]
    files = map(str, sorted(protos.rglob("*.proto")))
    assert protoc.main(["protoc", *arguments, *files]) == 0
    for package in ("dnd", "dnd/v1"):
        (target / package / "__init__.py").write_text("")


def make_next_version(folder: Path) -> Path:
    """The modules of the next version; the folder to put on PYTHONPATH."""
    protos, source = folder / "protos", folder / "source"
    write_next_protos(protos)
    (source / "dnd").mkdir(parents=True)
    generate(protos, source)
    for file in (source / "dnd" / "v1").glob("*_pb2_grpc.py"):
        text = re.sub(r"response_serializer=(\S+\.SerializeToString)", _say_more, file.read_text())
        text = re.sub(r"request_serializer=(\S+\.SerializeToString)", _ask_more, text)
        file.write_text(text)
    (source / "dnd" / "__init__.py").unlink()
    for path in (ROOT / "src" / "dnd").iterdir():
        if path.name not in ("v1", "__pycache__"):
            (source / "dnd" / path.name).symlink_to(path)
    for name in ("dnd_services", "dnd_packs"):
        (source / name).symlink_to(ROOT / "src" / name)
    return source


def _say_more(found: re.Match[str]) -> str:
    return f"response_serializer=lambda message: {found[1]}(message) + {_ANSWER!r}"


def _ask_more(found: re.Match[str]) -> str:
    more = "setattr(message.context, 'next_field', 'x')"
    return f"request_serializer=lambda message: ({more}, {found[1]}(message))[1]"


def find_breaking(protos: Path, against: Path) -> str:
    """What `buf breaking` says of protos that follow others."""
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or "buf"
    command = [buf, "breaking", str(protos), "--against", str(against)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr
