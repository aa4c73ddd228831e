"""SSA-Net's parameters and multiply-adds beside the paper's (Tables 3 and 4), part by part.

``python benchmarks/building_change_model.py`` prints Markdown tables; no weights or data are needed, and
nothing is computed: the networks live on torch's meta device.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

import torch  # noqa: E402
from kestrel.models.building_change.complexity import multiply_adds, parameters  # noqa: E402
from kestrel.models.building_change.network import ABLATIONS, PRESETS, SSANet  # noqa: E402

#: The paper's Table 3 on QL-CD, F1 and IoU in percent as they follow from its printed P and R.
PUBLISHED = {
    "Backbone": "80.35 / 67.16",
    "Backbone + CSHConv": "81.14 / 68.26",
    "Backbone + SSIF": "81.43 / 68.67",
    "SSA-Net": "84.15 / 72.63",
}


def sketch(**config: Any) -> SSANet:
    with torch.device("meta"):
        return SSANet(**config)


def published() -> list[str]:
    net = sketch()
    return [
        "| one pair of 3 x 256 x 256 | here | paper |",
        "|---|---:|---:|",
        f"| parameters | {parameters(net):,} | 3.54 M |",
        f"| operations as thop counts | {multiply_adds(net, thop=True):,} | 6.65 G |",
        f"| multiply-adds computed | {multiply_adds(net):,} | |",
    ]


def by_part() -> list[str]:
    net = sketch()
    rows = [
        (f"stage {k + 1}, both encoders", parameters(first) + parameters(second))
        for k, (first, second) in enumerate(zip(net.before, net.after, strict=True))
    ]
    rows += [("transposed convolutions", parameters(net.up)), ("decoder", parameters(net.decode))]
    rows += [("head", parameters(net.head)), ("**sum**", parameters(net))]
    return ["| part | parameters |", "|---|---:|", *(f"| {name} | {count:,} |" for name, count in rows)]


def ablations() -> list[str]:
    lines = [
        "| configuration | paper preset | G (thop) | small preset | G (thop) | paper: F1 / IoU |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, config in ABLATIONS.items():
        nets = [sketch(**PRESETS[preset], **config) for preset in ("paper", "small")]
        cells = " | ".join(f"{parameters(n):,} | {multiply_adds(n, thop=True) / 1e9:.2f}" for n in nets)
        lines.append(f"| {name} | {cells} | {PUBLISHED[name]} |")
    return lines


def main() -> None:
    tables = (published(), by_part(), ablations())
    sys.stdout.write("\n\n".join("\n".join(lines) for lines in tables) + "\n")


if __name__ == "__main__":
    main()
