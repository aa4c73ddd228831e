#!/usr/bin/env python3
"""Write docs/models/<name>.md from the card inside each shipped weight file; ``--check`` compares.

The card is one JSON string in the file's header, so the standard library is enough to read it.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "resources" / "weights"
PAGES = ROOT / "docs" / "models"


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return json.loads(header["__metadata__"]["kestrel"])


def shown(value: Any) -> str:
    """Return a figure or a text as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(shown(v) for v in value)
    if isinstance(value, dict):
        return "; ".join(f"{key} {shown(v)}" for key, v in value.items())
    return "-" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def table(rows: list[tuple[str, Any]], head: tuple[str, str]) -> list[str]:
    """Return a two-column table."""
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {k} | {shown(v)} |" for k, v in rows), ""]


def page(name: str, entry: dict[str, Any], card: dict[str, Any]) -> str:
    """Return the model card as Markdown."""
    lines = [f"# Model card: {name}", "", f"*Written by scripts/make_cards.py from `{entry['file']}`.*", ""]
    plain = ["version", "status", "paper", "preset", "parameters", "classes", "bands", "gsd", "scaling"]
    rows = [(key, card[key]) for key in [*plain, "tile", "seed"]]
    rows += [("sha256", f"`{entry['sha256']}`"), ("size", f"{entry['size']} bytes")]
    lines += table(rows, ("field", "value"))
    lines += ["## Limits", "", card["limits"], "", "## Data", ""]
    for source in card["data"]:
        lines += table(list(source.items()), ("source", shown(source.get("source", ""))))
    lines += ["## Figures", "", "Measured with this file.", ""]
    for split, figures in card["figures"].items():
        if isinstance(figures, dict):
            lines += [f"### {split}", "", *table(list(figures.items()), ("figure", "value"))]
        else:
            lines += [f"{split}: {shown(figures)}", ""]
    lines += ["## Made by", "", "```", card["command"], "```", ""]
    if card.get("extra"):
        lines += ["## Configuration", "", *table(list(card["extra"].items()), ("entry", "value"))]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write or check every page; returns 1 when ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on a difference")
    check = parser.parse_args().check
    stale = []
    for name, entry in json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8")).items():
        text = page(name, entry, read_card(WEIGHTS / entry["file"]))
        target = PAGES / f"{name}.md"
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(target.name)
        if not check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    if stale:
        sys.stdout.write(f"{'stale' if check else 'wrote'}: {', '.join(stale)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
