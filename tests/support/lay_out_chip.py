"""``python lay_out_chip.py FOLDER CHIP LAYOUT``: lay a real chip out, print path and truth as JSON.

A process of its own: rasterio's GDAL and QGIS's do not live together for long.
"""

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))

from kestrel.tests.support.real_chips import lay_out_chip  # noqa: E402

folder, chip, layout = sys.argv[1:]
found = lay_out_chip(Path(folder), chip, layout)
sys.stdout.write(json.dumps({"path": str(found.path), "polygons": [shape.wkt for shape in found.polygons]}))
