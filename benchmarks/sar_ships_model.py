"""Parameters and operations of the ship detector beside the paper's figures (Tables 8 and 9).

``python benchmarks/sar_ships_model.py`` prints a Markdown table; no weights or data are needed.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.sar_ships.attention import ATTENTIONS  # noqa: E402
from kestrel.models.sar_ships.complexity import gflops, parameters  # noqa: E402
from kestrel.models.sar_ships.network import SarShipNet  # noqa: E402

#: network, head, attention, objectness branch, the paper's GFLOPs
ROWS = [
    ("YOLOv5n, coupled head", "coupled", "none", "sce", "-"),
    ("+ simple decoupled head", "decoupled", "none", "sce", "7.1"),
    ("+ shuffle attention + context decoupled head (the paper's)", "context", "shuffle", "sce", "9.8"),
    ("same, objectness in the localisation branch", "context", "shuffle", "dpe", "-"),
]


def row(name: str, net: SarShipNet, published: str) -> str:
    return f"| {name} | {parameters(net):,} | {gflops(net):.2f} | {published} |"


def main() -> None:
    lines = ["| network at scale n, 640 x 640 | parameters | GFLOPs | paper |", "|---|---:|---:|---:|"]
    for name, head, attention, branch, published in ROWS:
        lines.append(row(name, SarShipNet(head=head, attention=attention, obj_branch=branch), published))
    for attention in ATTENTIONS:
        if attention != "shuffle":
            lines.append(row(f"context head, attention {attention}", SarShipNet(attention=attention), "-"))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
