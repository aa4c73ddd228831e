"""``python write_building_change_weights.py PATH``: write a tiny random network (no torch inside QGIS)."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    from kestrel.tests.support.building_change_weights import write_building_change_weights

    write_building_change_weights(sys.argv[1])
