"""The plugin zip: what it holds, the same bytes each time, and what the plugin site would refuse."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from kestrel.models.manifest import read_manifest
from kestrel.models.registry import MODELS
from kestrel.plugin.installing.weight_packs import install_weights
from kestrel.scripts import package, package_checks
from kestrel.tests.support.worker_tools import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what git tracks, so that nobody edits it meanwhile."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    copy = tmp_path_factory.mktemp("check out")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if name.split("/")[0] in (*package.FILES, *package.ROOMS) and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    subprocess.run(["git", "add", "-f", "."], cwd=copy, check=True)
    return copy


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    return package.build(checkout, tmp_path_factory.mktemp("pack age"))


def test_the_same_tree_gives_the_same_bytes(built, checkout, tmp_path):
    for name in ("metadata.txt", "plugin/paths.py"):
        os.utime(checkout / name, (1e9, 1e9))
        (checkout / name).chmod(0o755)
    again, more = package.build(checkout, tmp_path)
    assert again.read_bytes() == built[0].read_bytes()
    assert [each.read_bytes() for each in more] == [each.read_bytes() for each in built[1]]


def test_the_zip_passes_the_sites_structure_and_holds_no_tests(built):
    path, _ = built
    assert package_checks.structure(path) == []
    names = set(zipfile.ZipFile(path).namelist())
    assert {name.split("/")[1] for name in names} == {*package.FILES, *package.ROOMS}
    assert "kestrel/engine/launch.py" in names
    assert path.name == f"kestrel-{package_checks.metadata(ROOT / 'metadata.txt')['version']}.zip"


def test_every_default_travels_and_the_manifest_says_so(built):
    path, packs = built
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read(f"kestrel/{package.WEIGHTS}/manifest.json"))
        for key in package.defaults(manifest):
            inside = f"kestrel/{package.WEIGHTS}/{manifest[key]['file']}" in archive.namelist()
            assert inside == (manifest[key]["pack"] == "")
            if inside:
                data = archive.read(f"kestrel/{package.WEIGHTS}/{manifest[key]['file']}")
                assert hashlib.sha256(data).hexdigest() == manifest[key]["sha256"]
    assert manifest["sar_ships"]["pack"] == ""
    assert len(packs) == len(manifest)


@pytest.mark.slow
def test_what_does_not_fit_becomes_a_pack_and_the_manifest_names_it(built, checkout, tmp_path):
    limit = built[0].stat().st_size - 500_000
    path, packs = package.build(checkout, tmp_path, limit=limit)
    assert path.stat().st_size <= limit
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read(f"kestrel/{package.WEIGHTS}/manifest.json"))
        shipped = {name for name in archive.namelist() if name.endswith(".safetensors")}
    left_out = {key for key, entry in manifest.items() if entry["pack"]}
    assert left_out
    assert shipped == {
        f"kestrel/{package.WEIGHTS}/{manifest[key]['file']}" for key in manifest if key not in left_out
    }
    assert {manifest[key]["pack"] for key in left_out} <= {each.name for each in packs}


def test_packs_install(built, tmp_path):
    _, packs = built
    manifest = read_manifest(ROOT / package.WEIGHTS / "manifest.json")
    for pack in packs:
        (file,) = install_weights(pack, "", manifest, tmp_path / "kestrel home ü")
        assert file.model in {entry.weights for entry in MODELS.values()}
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("kestrel/engine/fast.so", b"\x7fELF", "is an executable or a library"),
        ("kestrel/plugin/__pycache__/x.py", b"", "does not belong"),
        ("kestrel/../evil.py", b"", "leaves the folder"),
        ("other/file.py", b"", "the one folder kestrel"),
        ("kestrel/resources/table.bin", b"ab\0cd", "is binary"),
    ],
)
def test_exception_structure_names_what_the_site_refuses(tmp_path, name, data, said):
    path = tmp_path / "p.zip"
    package.write_zip(path, [("kestrel/metadata.txt", b"[general]\nname=x\n"), (name, data)])
    found = package_checks.structure(path)
    assert any(said in each for each in found), found
    assert "metadata.txt has no description." in found
    assert "LICENSE is missing." in found


@pytest.mark.parametrize(
    ("line", "problems"),
    [
        ("from PyQt5.QtCore import Qt", 1),
        ("from qgis.PyQt.QtCore import Qt", 0),
        ("dialog.exec_()", 1),
        ("x = Qgis.Warning", 1),
        ("x = Qgis.MessageLevel.Warning", 0),
        ("x = Qt.AlignLeft | Qt.AlignTop", 2),
        ("x = QgsProcessing.TypeRaster", 1),
        ("x = QgsProcessing.SourceType.TypeRaster", 0),
        ("x = Qgis.QGIS_VERSION", 0),
        ("x = QVariant.Int", 0),
        ("def f(kind: QgsProcessingParameterNumber.Type): pass", 0),
        ("x = Queue.Empty", 0),
    ],
)
def test_qt6_scan(line, problems):
    assert len(list(package_checks.qt6_problems(ast.parse(line)))) == problems


def test_the_plugins_own_code_is_ready_for_qt6():
    assert package_checks.qt6(ROOT) == []


@pytest.mark.slow
def test_bandit_and_secrets_pass_and_can_fail(built, tmp_path):
    said = []
    assert package_checks.scans(built[0], said.append) == []
    folder = tmp_path / "kestrel"
    folder.mkdir()
    (folder / ".secrets.baseline").write_bytes((ROOT / ".secrets.baseline").read_bytes())
    made_up = hashlib.sha256(b"no secret at all").hexdigest()
    (folder / "a.py").write_text(
        f'import subprocess\nsubprocess.call(x, shell=True)\napi_token = "{made_up}"\n', encoding="utf-8"
    )
    assert any("B602" in each for each in package_checks.bandit(folder, said.append))
    assert any("a.py:3" in each for each in package_checks.secrets(folder))


@pytest.mark.slow
def test_from_the_zip_to_ships_by_the_index_and_by_a_wheel_folder(built, tmp_path):
    """The one test that installs for real; its transcript is what the documentation shows."""
    script = ROOT / "scripts" / "try_installation.py"
    pack = next(each for each in built[1] if "sar_ships" in each.name)
    command = [sys.executable, str(script), str(built[0]), "--pack", str(pack), "--work", str(tmp_path / "w")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
