"""Run the benchmarks one after another: ``make bench``. Each prints its own table.

Those that need trained weights or the development data say so and are left out where these are
missing. The figures of benchmarks/README.md come from these commands.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def run(*command: str) -> None:
    """Run one benchmark script with this interpreter; raises when it fails."""
    sys.stdout.write(f"\n## {' '.join(command)}\n\n")
    sys.stdout.flush()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".kestrel" / "python")}
    subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True)


def main() -> None:
    """Run everything that can run here."""
    run("benchmarks/plugin_start.py")
    run("benchmarks/sar_ships_model.py")
    run("benchmarks/engine_boxes.py")
    run("benchmarks/engine_raster.py")
    run("benchmarks/engine_raster_memory.py")
    run("benchmarks/dark_channel.py")
    run("benchmarks/dehazing_model.py")
    run("benchmarks/dehazing_tiles.py")
    run("benchmarks/building_change_model.py")
    run("benchmarks/polygons.py")
    if not (ROOT / "resources" / "weights" / "sar_ships.safetensors").is_file():
        sys.stdout.write("\nNo weights are shipped: accuracy and tile size are left out.\n")
        return
    run("benchmarks/sar_ships_tiles.py")
    with tempfile.TemporaryDirectory() as packed:
        # without the development data only the simulated parts are packed
        run("scripts/pack_sar_ships.py", packed, "--validation-only")
        run("benchmarks/sar_ships_accuracy.py", packed)


if __name__ == "__main__":
    main()
