"""Make the dehazing pictures of the docs: a clear aerial scene, hazed by simulation, then dehazed.

``python scripts/make_dehazing_pictures.py`` needs the development data (KESTREL_DATA, NAIP imagery of
the USDA) and writes docs/pictures/dehazedarkchannel.jpg and dehaze.jpg, the latter with the shipped weights.
Only the haze is simulated.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.engine.job import Job  # noqa: E402 (the package lies in the checkout)
from kestrel.engine.run import run_job  # noqa: E402
from kestrel.models.classical.haze import simulate  # noqa: E402

DATA = Path(os.environ.get("KESTREL_DATA", ROOT.parent / "shared" / "data"))
SCENE = DATA / "clear_optical" / "naip" / "m_4709963_se_14_1_20180716.tif"
PICTURES = ROOT / "docs" / "pictures"
#: Model -> picture, named as its algorithm.
MODELS = {"dark_channel": "dehazedarkchannel.jpg", "dehazing": "dehaze.jpg"}
#: Columns of each panel; three stand side by side on a page.
WIDTH = 420
GAP = 6
LIMIT_BYTES = 300_000


class Quiet:
    """Events that nobody watches."""

    cancel = threading.Event()

    def progress(self, *_: Any) -> None:
        """Say nothing."""

    def log(self, level: str, text: str) -> None:
        """Say nothing."""


def main() -> int:
    """Haze, dehaze, draw."""
    with rasterio.open(SCENE) as dataset:
        clear, profile = dataset.read([1, 2, 3]), dataset.profile
    hazed = simulate(clear.astype(np.float32) / 255, seed=1, thickest=0.3, gamma=2.2)
    hazy = np.rint(hazed.image * 255).astype(np.uint8)
    for model, name in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            source, result = Path(folder) / "hazy.tif", Path(folder) / "dehazed.tif"
            with rasterio.open(source, "w", **{**profile, "count": 3}) as dataset:
                dataset.write(hazy)
            image = {"path": str(source), "bands": []}
            run_job(Job("predict", model, {"image": image}, {"raster": str(result)}, {}), Quiet())
            with rasterio.open(result) as dataset:
                dehazed = dataset.read()
        _write(PICTURES / name, [_panel(picture) for picture in (hazy, dehazed, clear)])
    return 0


def _write(path: Path, panels: list[Image.Image]) -> None:
    """Draw the panels side by side, as good as LIMIT_BYTES allows."""
    page = Image.new("RGB", (3 * WIDTH + 2 * GAP, panels[0].height), "white")
    for number, panel in enumerate(panels):
        page.paste(panel, (number * (WIDTH + GAP), 0))
    for quality in (90, 80, 70, 60):
        stream = io.BytesIO()
        page.save(stream, "JPEG", quality=quality)
        if stream.tell() <= LIMIT_BYTES:
            break
    path.write_bytes(stream.getvalue())
    sys.stdout.write(f"{path.relative_to(ROOT)}: {stream.tell()} bytes, quality {quality}\n")


def _panel(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    sys.exit(main())
