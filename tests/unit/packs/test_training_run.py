"""One command trains all: two lanes in an order that holds, failures that say where to look."""

import subprocess
import threading
from pathlib import Path

import pytest

from dnd_packs.starter.train import run


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name in run.STYLE_PACKAGES:
        package = tmp_path / "styles" / name / "package"
        package.mkdir(parents=True)
        (package / "icons.json").write_text("{}")
    return tmp_path


def replace_modules(
    monkeypatch: pytest.MonkeyPatch, failing: str = "", slow: str = ""
) -> tuple[list[str], threading.Event]:
    """Record what would run; the step named ``slow`` ends when the event is set."""
    ran: list[str] = []
    go_on = threading.Event()

    def record(module: str, log: str, work: Path, *arguments: str) -> None:
        if log == slow:
            assert go_on.wait(30)
        if log == failing:
            raise subprocess.CalledProcessError(3, module)
        ran.append(log)

    monkeypatch.setattr(run, "run_module", record)
    return ran, go_on


def test_export_comes_last_when_all_steps_end(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, _ = replace_modules(monkeypatch)

    run.main(work)

    assert ran[0] == "prepare"
    assert ran[-1] == "export"
    assert {"vae", "text", "unet", "captioner", "clip", "decoder"} == set(ran[1:-1])


def test_decoder_waits_when_the_encoder_is_still_in_training(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, go_on = replace_modules(monkeypatch, slow="vae")
    thread = threading.Thread(target=run.main, args=(work,))
    thread.start()
    while "clip" not in ran:
        thread.join(0.01)
    assert "decoder" not in ran
    go_on.set()
    thread.join()

    assert ran.index("vae") < ran.index("decoder")


def test_nothing_is_exported_when_a_step_fails(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, _ = replace_modules(monkeypatch, failing="vae")

    with pytest.raises(SystemExit, match=r"vae: exit status 3, see vae\.log"):
        run.main(work)

    assert "export" not in ran
    assert "decoder" not in ran


def test_missing_styles_are_named_when_the_folder_lacks_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="lacks noto, noto-v1"):
        run.main(tmp_path)


def test_an_earlier_run_is_refused_when_its_weights_lie_there(work: Path) -> None:
    (work / "unet").mkdir()

    with pytest.raises(SystemExit, match="holds unet of an earlier run"):
        run.main(work)
