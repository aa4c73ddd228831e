"""DWTMA-Net's parameters and multiply-adds beside the paper's (Table 4 and its text), part by part.

``python benchmarks/dehazing_model.py`` prints Markdown tables; no weights or data are needed, and nothing
is computed: the networks live on torch's meta device. ``--seconds`` also times both presets on tiles
of 512 pixels with random weights.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

import torch  # noqa: E402
from kestrel.engine.heap import keep_large  # noqa: E402
from kestrel.models.dehazing.blocks import MAB, SAOD, DilateRes  # noqa: E402
from kestrel.models.dehazing.complexity import multiply_adds, parameters  # noqa: E402
from kestrel.models.dehazing.network import ABLATIONS, PRESETS, DWTMANet  # noqa: E402
from kestrel.models.dehazing.task import restore  # noqa: E402
from torch import nn  # noqa: E402

SIZE = 512
#: The paper's Tables 5 and 6, PSNR (dB) and SSIM on SateHaze1k thin, trained at 80 px.
PUBLISHED = {
    "Base(DM)": "18.47 / 0.8547",
    "Base(DM)+DWB": "20.53 / 0.8896",
    "Base(DM)+MAB": "21.84 / 0.8838",
    "Base(DM)+DWB+MAB": "22.87 / 0.8940",
    "Base+MAB+WDM": "21.64 / 0.8860",
    "Base+DWB+MAB+WDM": "23.69 / 0.9043",
    "DWTMA-Net - CA": "23.16 / 0.8966",
    "DWTMA-Net - PA": "20.04 / 0.8905",
    "DWTMA-Net - FA": "22.66 / 0.8910",
}


def sketch(**config: object) -> DWTMANet:
    with torch.device("meta"):
        return DWTMANet(**config)  # type: ignore[arg-type]


def published() -> list[str]:
    with torch.device("meta"):
        saod = SAOD(3)
    net = sketch()
    return [
        f"| at 3 x {SIZE} x {SIZE} | parameters | paper | multiply-adds | paper |",
        "|---|---:|---:|---:|---:|",
        f"| SAOD, 3 channels | {parameters(saod):,} | 684 | {multiply_adds(saod) / 1e6:.2f} M | 170.66 M |",
        f"| DWTMA-Net | {parameters(net):,} | 8.34 M | {multiply_adds(net) / 1e9:.2f} G | 188.72 G |",
    ]


def by_part() -> list[str]:
    net = sketch()
    groups: dict[str, list[nn.Module]] = {
        "stem": [net.stem],
        "wavelet down-sampling": [net.down1, net.down2],
        "up-sampling, skips, fusion": [net.up1, net.up2, net.fuse1, net.fuse2],
        "head": [net.head],
        "SAOD": [m for m in net.modules() if isinstance(m, SAOD)],
        "dilated residual block": [m for m in net.modules() if isinstance(m, DilateRes)],
        "attention block": [m for m in net.modules() if isinstance(m, MAB)],
    }
    found = multiply_adds_inside(net, groups)
    lines = ["| part | count | parameters | multiply-adds, G |", "|---|---:|---:|---:|"]
    for name, parts in groups.items():
        lines.append(f"| {name} | {len(parts)} | {sum(map(parameters, parts)):,} | {found[name] / 1e9:.3f} |")
    total = sum(sum(map(parameters, parts)) for parts in groups.values())
    return [*lines, f"| **sum** | | {total:,} | {sum(found.values()) / 1e9:.3f} |"]


def multiply_adds_inside(net: DWTMANet, groups: dict[str, list[nn.Module]]) -> dict[str, int]:
    """What each group costs in the network: every part alone, on inputs of the shape it gets there."""
    shapes: dict[nn.Module, list[int]] = {}
    hooks = []
    for part in (part for parts in groups.values() for part in parts):
        hooks.append(
            part.register_forward_pre_hook(lambda module, x: shapes.update({module: list(x[0].shape)}))
        )
    net.eval()(torch.zeros(1, 3, SIZE, SIZE, device="meta"))
    for hook in hooks:
        hook.remove()
    return {name: sum(_alone(part, shapes[part]) for part in parts) for name, parts in groups.items()}


def _alone(part: nn.Module, shape: list[int]) -> int:
    batch, channels, size, _ = shape
    if hasattr(part, "skip"):  # fusion takes two inputs of one shape
        return multiply_adds(_Twice(part), size, channels)
    return batch * multiply_adds(part, size, channels)


class _Twice(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x, x)


def ablations() -> list[str]:
    lines = [
        "| configuration | paper preset | G | small preset | G | paper: PSNR / SSIM |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, config in ABLATIONS.items():
        cells = []
        for preset in ("paper", "small"):
            net = sketch(**PRESETS[preset], **config)
            cells.append(f"{parameters(net):,} | {multiply_adds(net) / 1e9:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {PUBLISHED[name]} |")
    return lines


def seconds(rounds: int = 3) -> list[str]:
    """Tiles one by one, as the worker runs them on a CPU; processor time over all threads."""
    keep_large()
    threads = torch.get_num_threads()
    lines = [
        f"Tiles of {SIZE}, {threads} threads, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}.",
        "",
        "| preset | s per Mpx of tile, fastest | median | processor time, fastest |",
        "|---|---:|---:|---:|",
    ]
    image = torch.rand(1, 3, SIZE, SIZE)
    for name, config in PRESETS.items():
        net = DWTMANet(**config).eval()
        restore(image, net)
        wall, busy = [], []
        for _ in range(rounds):
            start, used = time.perf_counter(), time.process_time()
            restore(image, net)
            wall.append((time.perf_counter() - start) / SIZE**2 * 1e6)
            busy.append((time.process_time() - used) / SIZE**2 * 1e6)
        lines.append(f"| {name} | {min(wall):.2f} | {statistics.median(wall):.2f} | {min(busy):.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", action="store_true", help="also time both presets")
    asked = parser.parse_args()
    tables = [published(), by_part(), ablations()]
    if asked.seconds:
        tables.append(seconds())
    sys.stdout.write("\n\n".join("\n".join(lines) for lines in tables) + "\n")


if __name__ == "__main__":
    main()
