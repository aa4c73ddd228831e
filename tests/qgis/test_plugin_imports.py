"""Loading the plugin asks for no heavy library: neither the provider nor the menu, nor any algorithm."""

import json
import os
import subprocess
import sys

import pytest
from kestrel.tests.support.worker_tools import ROOT

pytestmark = pytest.mark.qgis

HEAVY = ["torch", "rasterio", "numpy", "scipy", "shapely", "geopandas", "pandas", "pyogrio", "matplotlib"]

#: Every request for a module passes the first finder, also one that fails and is caught.
CHILD = """
import importlib, json, sys

heavy = set(json.loads(sys.argv[1]))
asked = []


class Recorder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            asked.append(name)


from qgis.core import QgsApplication
from qgis.PyQt.QtWidgets import QMainWindow

application = QgsApplication([], True)
application.initQgis()
before = sorted(heavy.intersection(sys.modules))
sys.meta_path.insert(0, Recorder())
if sys.argv[2]:
    importlib.import_module(sys.argv[2])


class Iface:
    window = QMainWindow()

    def mainWindow(self):
        return self.window

    def __getattr__(self, name):
        return lambda *arguments: None


sys.path.insert(0, sys.argv[3])
import kestrel

plugin = kestrel.classFactory(Iface())
plugin.initGui()
algorithms = [algorithm.create().id() for algorithm in plugin.provider.algorithms()]
plugin.unload()
print("KESTREL", json.dumps({"before": before, "asked": asked, "algorithms": algorithms}))
sys.stdout.flush()
import os
os._exit(0)
"""


def load(tmp_path, first=""):
    """Load the plugin in a fresh process, after the module ``first``; return what was asked for."""
    (tmp_path / "kestrel").symlink_to(ROOT)
    environ = {**os.environ, "KESTREL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", CHILD, json.dumps(HEAVY), first, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    assert "KESTREL " in done.stdout, done.stderr
    return json.loads(done.stdout.rpartition("KESTREL ")[2])


def test_loading_the_plugin_asks_for_nothing_heavy(tmp_path):
    told = load(tmp_path)
    assert told["before"] == []
    assert told["asked"] == []
    assert {"kestrel:detectships", "kestrel:runtimestatus"} <= set(told["algorithms"])


def test_the_recorder_notices_a_request(tmp_path):
    assert "numpy" in load(tmp_path, first="numpy")["asked"]
