"""One static HTML file that opens offline: sections, tables, pictures inside, strings escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; margin: 2em auto; max-width: 62em;
  padding: 0 1em }
h1 { font-size: 1.6em; margin-bottom: 0 }
h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ccd }
p.lead { color: #567; margin-top: .2em } img { max-width: 100%; border: 1px solid #ccd }
table { border-collapse: collapse }
div.side { display: flex; flex-wrap: wrap; gap: 1em }
div.side figure { flex: 1 1 24em; margin: 0; min-width: 0 } div.side img { width: 100% }
td, th { text-align: left; padding: .2em 1.2em .2em 0; vertical-align: top }
th { color: #567; font-weight: 600 } td.number { text-align: right; font-variant-numeric: tabular-nums }
tr + tr td { border-top: 1px solid #eef } figcaption { color: #567 } li.warning { color: #a33 }
"""


class Report:
    """Collects sections in order; every text that comes in is escaped on its way out."""

    def __init__(self, title: str, lead: str = "") -> None:
        """Start a page; ``lead`` is the line below its title."""
        self._title = title
        self._parts = [f"<h1>{_text(title)}</h1>", f'<p class="lead">{_text(lead)}</p>' if lead else ""]

    def section(self, heading: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{_text(heading)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{_text(text)}</p>")

    def warnings(self, texts: Iterable[str]) -> None:
        """Add a list of warnings."""
        items = "".join(f'<li class="warning">{_text(text)}</li>' for text in texts)
        self._parts.append(f"<ul>{items}</ul>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table; numbers stand to the right, None is left empty."""
        head = "".join(f"<th>{_text(name)}</th>" for name in header)
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        self._parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def pairs(self, values: Mapping[str, Any]) -> None:
        """Add a table of names and values; nested mappings are written as dotted names."""
        self.table(("", ""), list(_flat(values)))

    def picture(self, image: bytes, caption: str) -> None:
        """Add a PNG or JPEG, embedded."""
        self._parts.append(_figure(image, caption))

    def side_by_side(self, pictures: Iterable[tuple[bytes, str]]) -> None:
        """Add (image, caption) pairs in one row, of equal width; below each other on a narrow screen."""
        figures = "".join(_figure(image, caption) for image, caption in pictures)
        self._parts.append(f'<div class="side">{figures}</div>')

    def html(self) -> str:
        """Return the page."""
        return (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            f"<title>{_text(self._title)}</title><style>{_STYLE}</style></head><body>"
            + "\n".join(part for part in self._parts if part)
            + "</body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page as UTF-8."""
        path.write_text(self.html(), encoding="utf-8")


def _figure(image: bytes, caption: str) -> str:
    kind = "jpeg" if image.startswith(b"\xff\xd8") else "png"
    data = base64.b64encode(image).decode("ascii")
    return (
        f'<figure><img alt="{_text(caption)}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _cell(value: Any) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{_text(value)}</td>"
    return f'<td class="number">{_text(f"{value:.6g}" if isinstance(value, float) else value)}</td>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
