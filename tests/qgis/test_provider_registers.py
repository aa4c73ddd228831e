"""The provider registers anywhere: in qgis_process without any runtime, and in the GUI's plugin life."""

import configparser
import os
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from kestrel.plugin import paths, settings
from kestrel.tests.support.worker_tools import ROOT
from qgis.core import QgsSettings

pytestmark = pytest.mark.qgis

ALGORITHMS = {"detectships", "detectshipscfar", "installruntime", "installweights", "runtimestatus"}


def qgis_process(*arguments, script=ROOT / "scripts" / "qgis_process", **environ):
    return subprocess.run(
        [script, *arguments],
        capture_output=True,
        text=True,
        env={**clean_environment(), **environ},
        cwd="/",
        timeout=120,
        check=False,
    )


def clean_environment():
    """Without what the tests' own QGIS needs: qgis_process finds its Python packages by itself."""
    dropped = ("PYTHONPATH", "QGIS_CUSTOM_CONFIG_PATH", "VIRTUAL_ENV", "QT_QPA_PLATFORM")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def checkout(folder):
    """Copy what the plugin needs of this checkout to ``folder``: a fresh one, never enabled."""
    for room in ("plugin", "algorithms", "engine", "models", "scripts"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "resources" / "icons", folder / "resources" / "icons")
    for name in ("__init__.py", "metadata.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder / "scripts" / "qgis_process"


def listed(text):
    return {
        line.strip().split("\t")[0][8:] for line in text.splitlines() if line.strip().startswith("kestrel:")
    }


def test_the_provider_shows_without_torch_or_any_runtime(tmp_path):
    done = qgis_process("list", KESTREL_PYTHON="/nowhere/python", KESTREL_HOME=str(tmp_path))
    assert done.returncode == 0
    assert listed(done.stdout) >= ALGORITHMS
    assert "Kestrel" in done.stdout.splitlines()


@pytest.mark.slow
def test_a_checkout_in_a_folder_with_space_and_dot_and_three_first_runs_at_once(tmp_path):
    script = checkout(tmp_path / "my code v1.0" / "kestrel main.d")
    environ = {
        **clean_environment(),
        "KESTREL_PYTHON": "/nowhere/python",
        "KESTREL_HOME": str(tmp_path / "h"),
    }
    runs = [
        subprocess.Popen(
            [script, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, cwd="/"
        )
        for _ in range(3)
    ]
    for run in runs:
        out, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
        assert listed(out) >= ALGORITHMS
    link = (
        script.parent.parent / ".kestrel" / "qgis" / "profiles" / "default" / "python" / "plugins" / "kestrel"
    )
    assert link.resolve() == (script.parent.parent).resolve()
    # moved to another place, the checkout finds itself again
    moved = tmp_path / "elsewhere"
    (script.parent.parent).rename(moved)
    done = qgis_process("list", script=moved / "scripts" / "qgis_process", KESTREL_PYTHON="/nowhere/python")
    assert listed(done.stdout) >= ALGORITHMS


def test_arguments_output_and_exit_code_pass_unchanged(tmp_path):
    # the arguments as a fake qgis_process.bin sees them
    program = tmp_path / "bin" / "qgis_process.bin"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nfor a in "$@"; do printf "<%s>\\n" "$a"; done\necho oops >&2\n'
        'printf "%s\\n" "$QGIS_CUSTOM_CONFIG_PATH" "$KESTREL_PYTHON" "$QT_QPA_PLATFORM"\nexit 42\n'
    )
    program.chmod(0o755)
    qgis_process("plugins")  # enables this checkout, if nothing did before
    environ = clean_environment()
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "KESTREL_PYTHON"):
        environ.pop(name, None)
    environ["PATH"] = f"{program.parent}{os.pathsep}{environ['PATH']}"
    arguments = ["run", "a:b", "--", "INPUT=/a b/c'd.tif", 'X=$HOME "é"', "", "*"]
    done = subprocess.run(
        [ROOT / "scripts" / "qgis_process", *arguments],
        capture_output=True,
        text=True,
        env=environ,
        cwd=tmp_path,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[: len(arguments)] == [f"<{argument}>" for argument in arguments]
    assert lines[len(arguments) :] == [
        str(ROOT / ".kestrel" / "qgis"),
        str(ROOT / ".venv" / "bin" / "python"),
        "offscreen",
    ]
    assert done.stderr == "oops\n"
    assert done.returncode == 42


def test_exit_codes_of_the_real_program_pass_through(tmp_path):
    environ = {"KESTREL_PYTHON": "/nowhere/python", "KESTREL_HOME": str(tmp_path)}
    assert qgis_process("help", "kestrel:detectships", **environ).returncode == 0
    assert qgis_process("run", "kestrel:nothing", **environ).returncode == 1
    assert qgis_process("dance", **environ).returncode == 1


def in_qgis_python(body):
    """Run ``body`` in a QGIS application of its own, on QGIS's own Python; return what it prints."""
    code = (
        "import os, sys\n"
        f"sys.path[:0] = [{str(ROOT / '.kestrel' / 'python')!r}]\n"
        "from qgis.core import QgsApplication\n"
        "app = QgsApplication([], True); app.initQgis()\n"
        "registry = QgsApplication.processingRegistry()\n"
        "from kestrel.plugin import warm\n"
        "from kestrel.plugin.kestrel_plugin import KestrelPlugin\n"
        f"{body}\n"
        "sys.stdout.flush(); os._exit(0)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code],
        capture_output=True,
        text=True,
        env={**clean_environment(), "QT_QPA_PLATFORM": "offscreen"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


GUI = """
from qgis.PyQt.QtWidgets import QMainWindow
class Iface:
    window, added, removed = QMainWindow(), [], []
    def mainWindow(self): return self.window
    def addPluginToMenu(self, menu, action): self.added.append((menu, action.text()))
    def removePluginMenu(self, menu, action): self.removed.append((menu, action.text()))
iface = Iface()
plugin = KestrelPlugin(iface)
plugin.initGui()
provider = registry.providerById("kestrel")
print(sorted(a.name() for a in provider.algorithms()))
print(provider.longName(), provider.icon().isNull(), provider.icon().pixmap(16, 16).isNull())
print(iface.added, warm.current() is not None)
second = KestrelPlugin(None)
second.initProcessing()
second.unload()
print(registry.providerById("kestrel") is not None)
plugin.unload()
print(registry.providerById("kestrel"), iface.removed == iface.added, warm.current())
"""


def test_plugin_life_in_the_gui():
    names, looks, menu, second, after = in_qgis_python(GUI)
    assert set(eval(names)) >= ALGORITHMS
    assert looks == "Kestrel 0.1.0 False False"
    items = [("Kestrel", f"{name}…") for name in ("Install runtime", "Install weights", "Runtime status")]
    assert menu == f"{items} True"
    assert second == "True", "a refused second Kestrel must not take the first one away"
    assert after == "None True None"


HEADLESS = """
plugin = KestrelPlugin(None)
plugin.initProcessing()
print(registry.providerById("kestrel") is not None, warm.current())
print(sorted({m.split('.')[0] for m in sys.modules}))
plugin.unload()
print(registry.providerById("kestrel"))
"""


def test_plugin_without_a_gui_needs_no_iface_and_nothing_that_qgis_does_not_ship():
    registered, modules, after = in_qgis_python(HEADLESS)
    assert registered == "True None"
    heavy = {"torch", "rasterio", "geopandas", "shapely", "scipy", "numpy", "pyogrio"}
    assert not set(eval(modules)) & heavy
    assert after == "None"


def test_settings_have_types_and_defaults(qgis_app):
    QgsSettings().remove("kestrel")
    assert settings.python() == ""
    assert settings.warm_minutes() == settings.DEFAULT_WARM_MINUTES
    QgsSettings().setValue(settings.PYTHON, " /opt/python ")
    QgsSettings().setValue(settings.WARM_MINUTES, "2.5")
    assert settings.python() == "/opt/python"
    assert settings.warm_minutes() == 2.5
    QgsSettings().setValue(settings.WARM_MINUTES, "soon")
    assert settings.warm_minutes() == settings.DEFAULT_WARM_MINUTES
    QgsSettings().remove("kestrel")


def test_metadata_has_what_the_plugin_site_and_qgis_process_ask_for():
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(ROOT / "metadata.txt", encoding="utf-8")
    general = metadata["general"]
    for key in (
        "name",
        "description",
        "version",
        "qgisMinimumVersion",
        "author",
        "email",
        "about",
        "tracker",
        "repository",
    ):
        assert general[key].strip(), key
    assert general["hasProcessingProvider"] == "yes"
    assert general["version"] == paths.kestrel_version()
    assert general["qgisMinimumVersion"] == "3.22"
    icon = ROOT / general["icon"]
    assert ElementTree.parse(icon).getroot().tag == "{http://www.w3.org/2000/svg}svg"
