"""Train the whole pack: two lanes of one thread each, then export.

python -m dnd_packs.starter.train.run <work folder> [<pack folder>]

The npm packages of the emoji styles lie unpacked under ``<work folder>/styles`` beforehand; the
README gives the lines. Budgets are processor seconds; every step may take twice that on the clock.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

LANES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("train_vae", "540"), ("train_unet", "3600"), ("train_vae", "600", "decoder")),
    (("train_captioner", "1800"), ("train_clip", "900")),
)


def run_step(module: str, work: Path, *arguments: str) -> None:
    """Run one training module in its own process with one thread and low priority."""
    command = ["nice", "-n", "15", sys.executable, "-m", f"dnd_packs.starter.train.{module}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (work / f"{module}.log").open("a") as log:
        subprocess.run(
            [*command, str(work), *arguments], check=True, stdout=log, stderr=log, env=environment
        )


def run_lane(work: Path, steps: tuple[tuple[str, ...], ...], failures: list[str]) -> None:
    """Run steps one after another; the first failure ends the lane."""
    for module, cpu_s, *flags in steps:
        # Peak learning rates have defaults in their modules, so only the decoder flag follows.
        try:
            run_step(module, work, cpu_s, str(2 * int(cpu_s)), *flags)
        except subprocess.CalledProcessError as error:
            failures.append(f"{module}: exit status {error.returncode}, see {module}.log")
            return


def main(work: Path, *pack: str) -> None:
    """Prepare, train both lanes side by side, export."""
    run_step("prepare", work)
    failures: list[str] = []
    lanes = [threading.Thread(target=run_lane, args=(work, steps, failures)) for steps in LANES]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    if failures:
        raise SystemExit("; ".join(failures))
    run_step("export", work, *pack)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
