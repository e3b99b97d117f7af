"""Results of a job as files: labels.jsonl, labels.csv and a report that needs no server."""

from dnd.report.results import Written, write_results

__all__ = ["Written", "write_results"]
