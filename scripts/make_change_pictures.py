"""Make docs/pictures/change.jpg: polygons of change over the later date, in a real QGIS under Xvfb.

``python scripts/make_change_pictures.py`` draws the made-up suburb of scripts/make_change_scene.py into
build/change/, searches it for change with the shipped weights and grabs QGIS with the result loaded.
Everything shown is simulated.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if "kestrel" not in sys.modules:
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.scripts.make_change_scene import write  # noqa: E402
from kestrel.scripts.make_pictures import PICTURES, store  # noqa: E402

SCENE = ROOT / "build" / "change"
SEED, SIZE = 0, 1200

#: Runs inside QGIS. Leaving by QGIS's own exit action hangs under Xvfb (observed), hence os._exit.
SHOT = """
import os
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtWidgets import QDockWidget
from qgis.core import QgsProject, QgsRasterLayer, QgsVectorLayer
from qgis.utils import iface

scene, out = {scene!r}, {out!r}

def load():
    window = iface.mainWindow()
    window.resize(1400, 950)
    for dock in window.findChildren(QDockWidget):
        if dock.objectName() != "Layers":
            dock.hide()
    after = QgsRasterLayer(os.path.join(scene, "after.tif"), "later date (simulated)")
    change = QgsVectorLayer(os.path.join(scene, "found.gpkg"), "change")
    QgsProject.instance().addMapLayers([change, after])
    # QGIS zooms to the first layers by itself, a moment later
    QTimer.singleShot(2000, lambda: zoom(after))
    QTimer.singleShot(7000, grab)

def zoom(layer):
    extent = layer.extent()
    extent.scale(0.72)
    iface.mapCanvas().setExtent(extent)
    iface.mapCanvas().refresh()

def grab():
    iface.mainWindow().grab().save(os.path.join(out, "change.png"))
    os._exit(0)

QTimer.singleShot(6000, load)
"""


def main() -> None:
    """Draw, search, grab."""
    write(SCENE, SEED, SIZE)
    found = SCENE / "found.gpkg"
    typed = {
        "BEFORE": SCENE / "before.tif",
        "AFTER": SCENE / "after.tif",
        "REFERENCE": SCENE / "change.gpkg",
        "OUTPUT": found,
        "OUTPUT_MASK": SCENE / "mask.tif",
        "OUTPUT_PROBABILITY": SCENE / "probability.tif",
        "REPORT": SCENE / "report.html",
    }
    call = [ROOT / "scripts" / "qgis_process", "run", "kestrel:detectbuildingchange", "--"]
    subprocess.run([*map(str, call), *(f"{name}={path}" for name, path in typed.items())], check=True)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "shot.py"
        script.write_text(SHOT.format(scene=str(SCENE), out=folder), encoding="utf-8")
        environment = {
            **os.environ,
            "QGIS_CUSTOM_CONFIG_PATH": str(ROOT / ".kestrel" / "qgis"),
            "PATH": "/usr/bin:" + os.environ.get("PATH", ""),
        }
        environment.pop("QT_QPA_PLATFORM", None)
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", "qgis.bin"]
        command += ["--nologo", "--noversioncheck", "--code", str(script)]
        subprocess.run(command, env=environment, timeout=180, check=True)
        store(Path(folder) / "change.png", PICTURES / "change.jpg")


if __name__ == "__main__":
    main()
