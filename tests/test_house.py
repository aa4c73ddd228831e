"""Rules of the house that a look at the tracked files can hold."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: ENGINE.md section 9 and QGIS.md section 7 say why.
FORBIDDEN = {
    r"\btorch\.load\(": "only safetensors are ever loaded",
    r"shell=True": "no string reaches a shell",
    r"\bReadAsArray\(": "Debian's gdal_array breaks with numpy 2",
    r"from PyQt[56]": "QGIS 4 has no PyQt5: import from qgis.PyQt",
    r"\bpickle\.loads?\(": "no pickle is ever read",
}
PRODUCT = ("plugin", "algorithms", "engine", "models", "scripts", "benchmarks")
BINARY_HOMES = {
    ".safetensors": "resources/weights/",
    ".png": "docs/pictures/",
    ".jpg": "docs/pictures/",
}


def tracked() -> list[Path]:
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if git.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return [ROOT / name for name in git.stdout.decode().split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize("pattern", FORBIDDEN, ids=lambda p: re.sub(r"\W+", "_", p).strip("_"))
def test_forbidden_calls_appear_nowhere(pattern):
    for path in tracked():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PRODUCT:
            text = path.read_text(encoding="utf-8")
            assert not re.search(pattern, text), f"{path.relative_to(ROOT)}: {FORBIDDEN[pattern]}"


def test_only_known_binaries_and_small_ones():
    for path in tracked():
        name = str(path.relative_to(ROOT))
        if b"\0" not in path.read_bytes()[:8000]:
            continue
        assert path.suffix in BINARY_HOMES, name
        assert name.startswith(BINARY_HOMES[path.suffix]), name
        limit = 18e6 if path.suffix == ".safetensors" else 300e3
        assert path.stat().st_size <= limit, name


def test_metadata_has_what_the_plugin_site_wants():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "metadata.txt", encoding="utf-8")
    general = parser["general"]
    required = "name description version qgisMinimumVersion author email about tracker repository".split()
    assert [key for key in required if not general.get(key)] == []
    assert general["hasProcessingProvider"] == "yes"
    assert general["qgisMinimumVersion"] == "3.22"
    assert (ROOT / general["icon"]).is_file()
    project = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert general["version"] == project.group(1)


def test_every_pinned_wheel_has_its_reason():
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                assert re.fullmatch(r"[\w.-]+==[\w.+]+ +# \S.*", line), f"{path.name}: {line}"


def test_pictures_of_the_readme_and_docs_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} points at {target}"


@pytest.mark.slow
def test_a_clone_in_a_folder_with_a_space_and_a_dot_works(tmp_path):
    """Set-up scripts, qgis_process and mypy all trip over such a name when a path is not quoted."""
    clone = tmp_path / "kestrel v0.1 copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(ROOT / ".venv")  # the wheels need not be installed twice

    demo = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, timeout=550)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert (clone / "build" / "demo" / "ships.gpkg").stat().st_size > 0
    assert (clone / "build" / "demo" / "ships.gpkg.kestrel.json").stat().st_size > 0
    lint = subprocess.run(["make", "lint"], cwd=clone, capture_output=True, text=True, timeout=300)
    assert lint.returncode == 0, lint.stdout + lint.stderr
