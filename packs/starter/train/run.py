"""Train the whole pack with one command: two lanes of one thread each, then export.

python -m dnd_packs.starter.train.run <work folder> [<pack folder>]

The npm packages of the emoji styles lie unpacked under ``<work folder>/styles`` beforehand; the
README gives the lines. Budgets are processor seconds; every step may take twice that on the clock.
"""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

STYLE_PACKAGES = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "emojione")


@dataclass(frozen=True)
class Step:
    """One training run.

    Attributes:
        name: what other steps wait for.
        module: of this package.
        cpu_s: processor seconds.
        flags: further arguments of the module.
        after: name of a step of the other lane that has to end first.
    """

    name: str
    module: str
    cpu_s: int
    flags: tuple[str, ...] = ()
    after: str | None = None


# The decoder run leaves the encoder, and so the latents that the UNet learns from, as it is.
LANES: tuple[tuple[Step, ...], ...] = (
    (
        Step("vae", "train_vae", 600),
        Step("text", "train_text", 185),
        Step("unet", "train_unet", 3000),
    ),
    (
        Step("captioner", "train_captioner", 2700),
        Step("clip", "train_clip", 750),
        Step("decoder", "train_vae", 450, flags=("decoder",), after="vae"),
    ),
)
# What an earlier run left behind and a later step would start from.
_REMAINS = ("vae", "unet", "text_encoder", "latents.npy", "captioner", "scorer")


class Failures:
    """Messages of steps that failed, and which steps have ended well."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._ended: set[str] = set()
        self._changed = threading.Condition()

    def add(self, message: str) -> None:
        """Keep a message; whoever waits gives up."""
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def mark_ended(self, step: str) -> None:
        """Say that ``step`` ended well."""
        with self._changed:
            self._ended.add(step)
            self._changed.notify_all()

    def wait_for(self, step: str | None) -> bool:
        """Wait until ``step`` ended well; False if any step failed instead."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self.messages) or step in {None, *self._ended})
            return not self.messages


def check_styles(work: Path) -> None:
    """Say which npm packages are missing under ``<work>/styles``."""
    missing = [
        name
        for name in STYLE_PACKAGES
        if not (work / "styles" / name / "package" / "icons.json").is_file()
    ]
    if missing:
        raise SystemExit(
            f"{work / 'styles'} lacks {', '.join(missing)}: unpack the npm packages "
            "@iconify-json/<name> there as packs/starter/README.md says."
        )


def check_empty(work: Path) -> None:
    """Refuse a work folder with an earlier run's weights: the steps would start from them."""
    found = [name for name in _REMAINS if (work / name).exists()]
    if found:
        raise SystemExit(
            f"{work} holds {', '.join(found)} of an earlier run: remove them or give another "
            "folder. Rasters and tokenizers may stay."
        )


def run_module(module: str, log: str, work: Path, *arguments: str) -> None:
    """Run one module in its own process with one thread and low priority."""
    command = ["nice", "-n", "15", sys.executable, "-m", f"dnd_packs.starter.train.{module}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (work / f"{log}.log").open("a") as stream:
        subprocess.run(
            [*command, str(work), *arguments],
            check=True,
            stdout=stream,
            stderr=stream,
            env=environment,
        )


def run_lane(work: Path, steps: tuple[Step, ...], failures: Failures) -> None:
    """Run steps one after another; the first failure anywhere ends the lane."""
    for step in steps:
        if not failures.wait_for(step.after):
            return
        try:
            # Peak learning rates have defaults in their modules, so only flags follow.
            run_module(
                step.module, step.name, work, str(step.cpu_s), str(2 * step.cpu_s), *step.flags
            )
        except subprocess.CalledProcessError as error:
            failures.add(f"{step.name}: exit status {error.returncode}, see {step.name}.log")
            return
        failures.mark_ended(step.name)


def main(work: Path, *pack: str) -> None:
    """Prepare, train both lanes side by side, export."""
    check_styles(work)
    check_empty(work)
    run_module("prepare", "prepare", work)
    failures = Failures()
    lanes = [threading.Thread(target=run_lane, args=(work, steps, failures)) for steps in LANES]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    if failures.messages:
        raise SystemExit("; ".join(failures.messages))
    run_module("export", "export", work, *pack)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
