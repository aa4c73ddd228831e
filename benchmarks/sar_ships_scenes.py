"""Network and CFAR on the same unstretched simulated scenes, each through the engine as a user runs it.

``python benchmarks/sar_ships_scenes.py`` simulates 16-bit amplitude scenes of 1024 x 1024 px at 10 m and
at 3 m with held-out seeds and conditions drawn as in training, gives both detectors their land mask, and
scores the polygons. benchmarks/sar_ships_accuracy.py scores the CFAR on 8-bit chips whose stretch clips the
very tails it lives on; here it gets its amplitudes whole. All of this is simulated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyogrio

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))
sys.path.insert(0, str(ROOT / "benchmarks"))

from kestrel.engine.job import Job  # noqa: E402
from kestrel.engine.run import run_job  # noqa: E402
from kestrel.models.sar_ships.metrics import evaluate  # noqa: E402
from kestrel.scripts.make_sar_scene import make_scene  # noqa: E402
from sar_ships_tiles import Quiet  # noqa: E402

#: Outside the ranges that training, validation and the demo draw from.
FIRST_SEED = 3_000_000


def found(model: str, scene: Path, land: Path, params: dict[str, float]) -> np.ndarray:
    """Boxes (N, 5) x1, y1, x2, y2, score in pixels of one run of the engine."""
    out = scene.with_suffix(".fgb")
    job = Job(
        kind="predict",
        model=model,
        inputs={"image": {"path": str(scene), "bands": [1]}, "land": {"path": str(land)}},
        outputs={"boxes": str(out)},
        params=params,
        scratch=str(scene.parent),
        device="cpu",
    )
    run_job(job, Quiet())
    table = pyogrio.read_dataframe(out, read_geometry=False)
    x, y, w, h = (table[name].to_numpy(float) for name in ("x_px", "y_px", "w_px", "h_px"))
    return np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2, table["score"].to_numpy(float)), axis=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=12, help="scenes of each pixel size")
    count = parser.parse_args().scenes
    detectors = {"network": ("sar_ships", {"confidence": 0.01}), "cfar": ("cfar", {})}
    sys.stdout.write("| scenes, simulated | detector | AP50 | precision | recall | ships |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pixel_m in (10.0, 3.0):
            truths: list[np.ndarray] = []
            boxes: dict[str, list[np.ndarray]] = {detector: [] for detector in detectors}
            for seed in range(FIRST_SEED, FIRST_SEED + count):
                scene, land = folder / f"{seed}_{pixel_m:g}.tif", folder / f"{seed}_{pixel_m:g}.gpkg"
                made = make_scene(
                    scene, seed=seed, height=1024, width=1024, pixel_m=pixel_m, ships=None,
                    land_share=None, land=land,
                )  # fmt: skip
                truths.append(made.scene.boxes)
                for detector, (model, params) in detectors.items():
                    boxes[detector].append(found(model, scene, land, params))
            for detector, answers in boxes.items():
                # the CFAR has no confidence: all it finds counts
                score = evaluate(answers, truths, confidence=0.25 if detector == "network" else 0.0)
                sys.stdout.write(
                    f"| {count} at {pixel_m:g} m | {detector} | {score.ap50:.3f} | {score.precision_at:.3f} "
                    f"| {score.recall_at:.3f} | {score.truths} |\n"
                )


if __name__ == "__main__":
    main()
