"""What the plugin costs when QGIS starts: qgis_process with and without it, in turns.

``python benchmarks/plugin_start.py [STARTS]``: medians of 20 starts each, interleaved so that a noisy
machine slows both alike, and what the plugin's own part takes inside the process.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STARTS = 20
DROPPED = ("PYTHON", "VIRTUAL_ENV", "QGIS_", "KESTREL_")


def start(program: str, environ: dict[str, str]) -> float:
    """Return the seconds that ``qgis_process list`` takes."""
    began = time.perf_counter()
    subprocess.run([program, "list"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a QGIS whose profile lies in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    kept.update(
        PATH="/usr/bin:/bin",
        QGIS_CUSTOM_CONFIG_PATH=str(folder),
        KESTREL_HOME=str(folder / "home"),
        QT_QPA_PLATFORM="offscreen",
    )
    return kept


def main() -> int:
    """Print a table; the exit code is 1 without qgis_process."""
    starts = int(sys.argv[1]) if len(sys.argv) > 1 else STARTS
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if not program:
        sys.stdout.write("There is no qgis_process.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        bare, full = Path(folder) / "bare", Path(folder) / "full"
        plugins = full / "profiles" / "default" / "python" / "plugins"
        plugins.mkdir(parents=True)
        bare.mkdir()
        (plugins / "kestrel").symlink_to(ROOT)
        subprocess.run(
            [program, "plugins", "enable", "kestrel"], env=environment(full), capture_output=True, check=False
        )
        listed = subprocess.run([program, "list"], env=environment(full), capture_output=True, text=True)
        if "kestrel:" not in listed.stdout:
            sys.stdout.write("The plugin could not be enabled.\n")
            return 1
        seconds: dict[str, list[float]] = {"without": [], "with": []}
        for number in range(starts):
            pair = [("without", bare), ("with", full)]
            # who comes first changes, so that neither profits from what the other left in the cache
            for name, profile in pair if number % 2 else reversed(pair):
                seconds[name].append(start(program, environment(profile)))
    sys.stdout.write("| qgis_process list | median | quartiles |\n|---|---:|---:|\n")
    for name, each in seconds.items():
        low, middle, high = statistics.quantiles(each, n=4)
        sys.stdout.write(f"| {name} the plugin | {middle:.3f} s | {low:.3f} to {high:.3f} s |\n")
    differences = [b - a for a, b in zip(seconds["without"], seconds["with"], strict=True)]
    low, middle, high = statistics.quantiles(differences, n=4)
    sys.stdout.write(f"| difference of neighbours | {middle:.3f} s | {low:.3f} to {high:.3f} s |\n")
    sys.stdout.write(f"\n{starts} starts each, in turns.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
