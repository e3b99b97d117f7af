"""The table of labels.csv with types: as a Parquet file, and as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnd.chunks import chunks
from dnd.client import Client
from dnd.errors import FailedPrecondition
from dnd.report.tables import COLUMNS, LabelFile, complete_record, row_of

if TYPE_CHECKING:
    import pandas as pd

_ROWS_AT_ONCE = 1000
_INTEGERS = frozenset(
    {"unit", "hit", "num_exemplars", "num_candidates", "seed"}
    | {"num_calls", "num_input_tokens", "num_output_tokens"}
)
_FLOATS = frozenset(
    {"score", "percentile", "auc", "certainty", "max_activation"}
    | {"topk_squared_mean", "image_products", "probe_correlation"}
)


def write_parquet(labels: LabelFile, path: Path) -> None:
    """Writes the rows of a labels.jsonl as Parquet; the file is replaced once it is complete.

    Raises:
        FailedPrecondition: pyarrow is not installed.
    """
    pyarrow = _library("pyarrow", "parquet", "Parquet")
    parquet = _library("pyarrow.parquet", "parquet", "Parquet")
    kinds = {"integer": pyarrow.uint64(), "float": pyarrow.float64(), "text": pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[_kind(name)]) for name in COLUMNS])
    draft = path.with_name(f".{path.name}.part")
    with parquet.ParquetWriter(draft, schema) as writer:
        for lines in chunks(labels.lines, _ROWS_AT_ONCE):
            rows = list(_rows(labels.read(lines)))
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
    draft.replace(path)


def labels_frame(client: Client, job_id: str = "") -> pd.DataFrame:
    """The labels of a job at this moment, one row a unit, with the columns of labels.csv.

    Args:
        job_id: The newest job for an empty id.

    Raises:
        NotFound: There is no such job.
        FailedPrecondition: pandas is not installed.
    """
    pandas = _library("pandas", "pandas", "A DataFrame")
    export = client.export(job_id)
    names = {layer.path: layer.unit_names for layer in client.layers(export.job.spec.model)}
    records = (
        complete_record(export.job, unit, names.get(unit.layer, ())) for unit in export.units
    )
    kinds = {"integer": "UInt64", "float": "Float64", "text": "string"}
    frame: pd.DataFrame = pandas.DataFrame.from_records(list(_rows(records)), columns=list(COLUMNS))
    return frame.astype({name: kinds[_kind(name)] for name in COLUMNS})


def _library(name: str, extra: str, what: str) -> Any:
    """A library that only some need.

    Raises:
        FailedPrecondition: It is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise FailedPrecondition(
            f"{what} takes {name}: pip install 'describe-and-dissect[{extra}]'."
        ) from None


def _kind(column: str) -> str:
    if column in _INTEGERS:
        return "integer"
    return "float" if column in _FLOATS else "text"


def _rows(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return map(row_of, records)
