"""Make the checkout importable as package ``kestrel``, whatever its folder is called."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# pytest-qgis starts a QApplication, which aborts where there is no screen.
if not os.environ.get("DISPLAY"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

if "kestrel" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "kestrel", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["kestrel"] = module
    spec.loader.exec_module(module)
