"""labels.jsonl and labels.csv."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from result_samples import LAYERS, make_sample

from dnd.jobs import JobSpec, LayerUnits, UnitResult, UnitState
from dnd.report.tables import COLUMNS, write_tables


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_orders_lines_by_layer_then_unit_when_they_arrive_otherwise(tmp_path: Path) -> None:
    head, features = make_sample(3), make_sample(2, layer="features.3")
    spec = JobSpec("small-net", (LayerUnits("features.3"), LayerUnits("head")), "squares")
    arrived = [head.units[2], features.units[1], head.units[0], features.units[0], head.units[1]]
    labels = write_tables(replace(head.job, spec=spec), arrived, LAYERS, tmp_path)

    order = [("features.3", 0), ("features.3", 1), ("head", 0), ("head", 1), ("head", 2)]
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [(one["layer"], one["unit"]) for one in lines] == order
    assert [(row["layer"], int(row["unit"])) for row in read_csv(tmp_path / "labels.csv")] == order
    assert labels.read(labels.lines[2:4]) == lines[2:4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "labels.jsonl"]


def test_writes_the_same_bytes_when_units_arrive_in_another_order(tmp_path: Path) -> None:
    sample = make_sample(4, states={1: UnitState.DEAD})
    for name, units in (("a", sample.units), ("b", sample.units[::-1])):
        (tmp_path / name).mkdir()
        write_tables(sample.job, units, LAYERS, tmp_path / name)
    for file in ("labels.jsonl", "labels.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_adds_class_and_hit_when_the_layer_names_its_units(tmp_path: Path) -> None:
    sample = make_sample(2, label="thing", states={1: UnitState.TIED})
    labels = write_tables(sample.job, sample.units, LAYERS, tmp_path)
    first, second = labels.read(labels.lines)
    assert first["true_class"] == {"name": "thing 0", "hit": True}
    assert second["true_class"] == {"name": "thing 1", "hit": None}
    assert "true_class" not in (sample.units[0].record or {})

    other = make_sample(1, layer="features.3")
    (line,) = write_tables(other.job, other.units, LAYERS, tmp_path).lines
    assert (line.true_class, line.hit) == ("", None)


def test_fills_the_columns_when_a_unit_is_labelled(tmp_path: Path) -> None:
    sample = make_sample(1)
    write_tables(sample.job, sample.units, LAYERS, tmp_path)
    (row,) = read_csv(tmp_path / "labels.csv")
    assert tuple(row) == COLUMNS
    expected = {
        "model": "small-net",
        "label": "red square 0",
        "runner_up": "plain ground",
        "third": "",
        "score": "1.25",
        "auc": "0.75",
        "true_class": "thing 0",
        "hit": "0",
        "max_activation": "3.0",
        "num_exemplars": "10",
        "num_candidates": "3",
        "topk_squared_mean": "6.0",
        "probe_correlation": "0.3",
        "num_calls": "5",
        "profile": "starter",
        "job": "job-1",
    }
    assert {name: row[name] for name in expected} == expected


def test_writes_what_is_known_when_a_unit_has_no_record(tmp_path: Path) -> None:
    sample = make_sample(1)
    unit = UnitResult("head", 0, UnitState.PENDING, "caption")
    labels = write_tables(sample.job, [unit], LAYERS, tmp_path)
    (record,) = labels.read(labels.lines)
    assert (record["state"], record["labels"], record["probe"]) == ("pending", [], "squares")
    (row,) = read_csv(tmp_path / "labels.csv")
    assert (row["state"], row["label"], row["num_calls"]) == ("pending", "", "")


def test_defuses_formulas_when_a_label_starts_like_one(tmp_path: Path) -> None:
    sample = make_sample(1, label='=HYPERLINK("http://x")')
    write_tables(sample.job, sample.units, LAYERS, tmp_path)
    (row,) = read_csv(tmp_path / "labels.csv")
    assert row["label"].startswith("'=HYPERLINK")


def test_keeps_the_files_before_when_units_stop_arriving(tmp_path: Path) -> None:
    sample = make_sample(2)
    write_tables(sample.job, sample.units, LAYERS, tmp_path)
    before = (tmp_path / "labels.jsonl").read_bytes()

    def broken():
        yield sample.units[0]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_tables(sample.job, broken(), LAYERS, tmp_path)
    assert (tmp_path / "labels.jsonl").read_bytes() == before
