"""Make the checkout importable as package ``kestrel``, whatever its folder is called."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

if "kestrel" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "kestrel", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["kestrel"] = module
    spec.loader.exec_module(module)
