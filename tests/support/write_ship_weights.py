"""``python write_ship_weights.py PATH``: write a thin random ship detector (torch stays out of QGIS)."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))

from kestrel.tests.support.ship_weights import write_ship_weights  # noqa: E402

write_ship_weights(sys.argv[1])
