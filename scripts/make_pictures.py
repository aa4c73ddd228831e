"""Make the pictures of the docs in a real QGIS under Xvfb; run `make demo` first.

``python scripts/make_pictures.py`` starts the desktop with the private profile of
scripts/qgis_process, opens the toolbox and the dialog, loads the demo's result and grabs both; the
demo's own picture becomes the README's. Everything shown is the simulated scene.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "build" / "demo"
PICTURES = ROOT / "docs" / "pictures"
LIMIT_BYTES = 300_000

#: Runs inside QGIS. Leaving by QGIS's own exit action hangs under Xvfb (observed), hence os._exit.
SHOT = """
import os
from qgis.PyQt.QtCore import QTimer
from qgis.core import (
    QgsApplication, QgsContrastEnhancement, QgsProject, QgsRasterLayer, QgsRasterMinMaxOrigin, QgsRectangle,
    QgsVectorLayer,
)
from qgis.utils import iface

demo, out = {demo!r}, {out!r}

def load():
    from qgis.utils import plugins
    window = iface.mainWindow()
    window.resize(1500, 950)
    scene = QgsRasterLayer(os.path.join(demo, "scene.tif"), "simulated SAR scene")
    ships = QgsVectorLayer(os.path.join(demo, "ships.gpkg"), "ships")
    scene.setContrastEnhancement(
        QgsContrastEnhancement.StretchToMinimumMaximum, QgsRasterMinMaxOrigin.CumulativeCut
    )
    QgsProject.instance().addMapLayers([ships, scene])
    iface.setActiveLayer(ships)
    # QGIS zooms to the first layers by itself, a moment later
    QTimer.singleShot(2000, lambda: zoom(ships, scene.extent()))
    for dock in window.findChildren(__import__("qgis.PyQt.QtWidgets", fromlist=["QDockWidget"]).QDockWidget):
        name = dock.objectName()
        if "Processing" in name or "Toolbox" in name:
            dock.show()
            for box in dock.findChildren(__import__("qgis.PyQt.QtWidgets", fromlist=["QLineEdit"]).QLineEdit):
                box.setText("ships")
                break
        elif name not in ("Layers",):
            dock.hide()
    QTimer.singleShot(6000, grab)

def zoom(ships, whole):
    # the largest ship and what lies within 3 km of it
    largest = max(ships.getFeatures(), key=lambda feature: feature.geometry().area())
    middle = largest.geometry().centroid().asPoint()
    # the canvas is about square; keep it on the scene
    x = min(max(middle.x(), whole.xMinimum() + 3500), whole.xMaximum() - 3500)
    y = min(max(middle.y(), whole.yMinimum() + 3500), whole.yMaximum() - 3500)
    iface.mapCanvas().setExtent(QgsRectangle(x - 3000, y - 3000, x + 3000, y + 3000))
    iface.mapCanvas().refresh()

def grab():
    iface.mainWindow().grab().save(os.path.join(out, "qgis.png"))
    from processing.gui.AlgorithmDialog import AlgorithmDialog
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("kestrel:detectships")
    dialog = AlgorithmDialog(algorithm, False, iface.mainWindow())
    dialog.resize(1050, 760)
    dialog.setParameters(dict(INPUT=QgsProject.instance().mapLayersByName("simulated SAR scene")[0].id()))
    dialog.show()
    QTimer.singleShot(3000, lambda: (dialog.grab().save(os.path.join(out, "dialog.png")), os._exit(0)))

QTimer.singleShot(6000, load)
"""


def store(source: Path, target: Path) -> None:
    """Write ``source`` as a picture under the size limit, JPEG where PNG is too large."""
    with Image.open(source) as image:
        flat = image.convert("RGB")
        if target.suffix == ".png":
            flat.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                target, optimize=True
            )
        for quality in (90, 80, 70, 60, 50):
            if target.suffix == ".jpg":
                flat.save(target, quality=quality, optimize=True)
            if target.stat().st_size < LIMIT_BYTES:
                return
    raise SystemExit(f"{target.name} stays over {LIMIT_BYTES} bytes.")


def main() -> None:
    """Make all pictures."""
    if not (DEMO / "ships.gpkg").is_file():
        raise SystemExit("There is no build/demo/ships.gpkg: run `make demo` first.")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "shot.py"
        script.write_text(SHOT.format(demo=str(DEMO), out=folder), encoding="utf-8")
        environment = {
            **os.environ,
            "QGIS_CUSTOM_CONFIG_PATH": str(ROOT / ".kestrel" / "qgis"),
            "KESTREL_PYTHON": str(ROOT / ".venv" / "bin" / "python"),
            "PATH": "/usr/bin:" + os.environ.get("PATH", ""),
        }
        environment.pop("QT_QPA_PLATFORM", None)
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", "qgis.bin"]
        command += ["--nologo", "--noversioncheck", "--code", str(script)]
        subprocess.run(command, env=environment, timeout=180, check=True)
        store(Path(folder) / "qgis.png", PICTURES / "qgis.png")
        store(Path(folder) / "dialog.png", PICTURES / "dialog.png")
    store(DEMO / "ships.png", PICTURES / "ships.jpg")
    sys.stdout.write(f"pictures: wrote {', '.join(sorted(p.name for p in PICTURES.iterdir()))}\n")


if __name__ == "__main__":
    main()
