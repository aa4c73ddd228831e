"""Install toys in a process of its own, so that it can be killed.

Usage: python install_toys.py HOME WHEELS RESOURCES; prints READY and the runtime's folder.
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))

from kestrel.plugin.installing import filling, runtime_build  # noqa: E402
from kestrel.tests.support import toy_runtime  # noqa: E402

home, wheels, resources = map(Path, sys.argv[1:])
assert not any(name.startswith("qgis") for name in sys.modules)
filling.Filling._make_venv = toy_runtime.quick_venv
options = runtime_build.Options(
    home=home,
    wheels=wheels,
    resources=resources,
    environ=toy_runtime.quiet_environ(os.environ),
    accelerator="cpu",
)
print("READY", runtime_build.install(toy_runtime.BASE, options).folder, flush=True)
