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
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if fresh:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


def read_rows(path: Path) -> list[dict[str, float]]:
    """The lines of a log as numbers; empty columns are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
