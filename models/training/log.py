"""A training's log: one csv line now and then, the same numbers for people and for plots."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def append_row(path: Path, row: Mapping[str, float], columns: Sequence[str]) -> None:
    """Add one line to the csv log, with a header if it is new, and say it; absent columns stay empty."""
    log.info(" ".join(f"{k} {row[k]:.4g}" for k in columns if k in row))
    _write(path, [row], columns, fresh=not path.exists())


def read_rows(path: Path) -> list[dict[str, float]]:
    """The lines of a log as numbers; empty columns are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def keep_rows(path: Path, step: int, columns: Sequence[str]) -> None:
    """Drop the lines after ``step``: a resumed run, killed after its last checkpoint, writes them again."""
    rows = read_rows(path) if path.exists() else []
    if any(row["step"] > step for row in rows):
        _write(path, [row for row in rows if row["step"] <= step], columns, fresh=True)


def _write(path: Path, rows: Sequence[Mapping[str, float]], columns: Sequence[str], *, fresh: bool) -> None:
    """Write lines, after a header into an emptied file if ``fresh``."""
    with path.open("w" if fresh else "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if fresh:
            writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
