#!/usr/bin/env python3
"""Write docs/algorithms/<id>.md from the texts that QGIS's dialogs show; ``--check`` only compares.

Needs QGIS's Python packages, no runtime. Exit code 1 with --check when a page is not up to date.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(os.path.abspath(__file__)).parent.parent
FOLDER = ROOT / "docs" / "algorithms"

#: Algorithm -> (file in docs/pictures, what it shows).
PICTURES = {
    "installruntime": (
        "install.png",
        "The same from the menu Kestrel > Install runtime, while it installs; closed, it goes on in the "
        "background.",
    ),
    "dehazedarkchannel": (
        "dehazedarkchannel.jpg",
        "Aerial imagery of the USDA (NAIP, North Dakota, 2018) with simulated haze, the same dehazed with "
        "the defaults, and the clear original. What is left is typical: a blue cast where the haze is thick, "
        "because one transmission serves all colours (scripts/make_dehazing_pictures.py).",
    ),
    "dehaze": (
        "dehaze.jpg",
        "Aerial imagery of the USDA (NAIP, North Dakota, 2018) with simulated haze, the same dehazed with "
        "the shipped weights in four tiles, and the clear original. Greens come back cooler and darker than "
        "they are (scripts/make_dehazing_pictures.py).",
    ),
}


def register() -> None:
    """Make the checkout importable as package ``kestrel``, whatever its folder is called."""
    spec = importlib.util.spec_from_file_location(
        "kestrel", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kestrel"] = module
    spec.loader.exec_module(module)


def page(algorithm: Any) -> str:
    """Return an algorithm's page in Markdown."""
    lines = [f"# {algorithm.displayName()}", "", f"`{algorithm.id()}`, group {algorithm.group()}.", ""]
    first, *others = algorithm.sections()
    lines += _paragraphs(first[1])
    if algorithm.name() in PICTURES:
        file, caption = PICTURES[algorithm.name()]
        lines += [f"![{caption}](../pictures/{file})", "", f"*{caption}*", ""]
    lines += ["## Parameters", "", "| id | name | default | meaning |", "|---|---|---|---|"]
    for parameter in algorithm.parameterDefinitions():
        cells = (
            f"`{parameter.name()}`",
            parameter.description() + _marks(parameter),
            _default(parameter),
            parameter.help(),
        )
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    lines += ["", "## Outputs", ""]
    for output in algorithm.outputDefinitions():
        lines.append(f"- `{output.name()}`: {output.description()}")
    lines.append("")
    for heading, paragraphs in others:
        lines += [f"## {heading}", "", *_paragraphs(paragraphs)]
    lines += ["<!-- made by scripts/make_docs.py from the help of the dialog; change it there -->", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _paragraphs(texts: list[str]) -> list[str]:
    return [line for text in texts for line in (text.replace("<", "&lt;"), "")]


def _marks(parameter: Any) -> str:
    from qgis.core import QgsProcessingParameterDefinition

    marks = []
    if parameter.flags() & QgsProcessingParameterDefinition.Flag.FlagOptional:
        marks.append("optional")
    if parameter.flags() & QgsProcessingParameterDefinition.Flag.FlagAdvanced:
        marks.append("advanced")
    return f" ({', '.join(marks)})" if marks else ""


def _default(parameter: Any) -> str:
    value = parameter.defaultValue()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    text = f"`{value:g}`" if isinstance(value, (int, float)) else f"`{value}`"
    if parameter.type() == "enum":
        text += f" of {', '.join(f'`{option}`' for option in parameter.options())}"
    return text


def pages() -> dict[Path, str]:
    """Return path -> text of every page."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from qgis.core import QgsApplication

    application = QgsApplication([], False)
    application.initQgis()
    register()
    from kestrel.plugin.provider import KestrelProvider

    registry = QgsApplication.processingRegistry()
    provider = KestrelProvider()
    registry.addProvider(provider)
    found = {FOLDER / f"{algorithm.name()}.md": page(algorithm) for algorithm in provider.algorithms()}
    registry.removeProvider(provider)
    return found


def main() -> int:
    """Write or compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 when a page is old")
    check = parser.parse_args().check
    found = pages()
    stale = [path for path, text in found.items() if not path.exists() or path.read_text("utf-8") != text]
    stale += [path for path in FOLDER.glob("*.md") if path not in found and path.name != "README.md"]
    if check:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not up to date; run make docs.\n")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        if path in found:
            path.write_text(found[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # QGIS may crash in its own shutdown when its objects outlive the application
    os._exit(code)
