"""The arrows between the rooms: who may import whom (ARCHITECTURE.md, "The house")."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
QGIS_SIDE = ("plugin", "algorithms")
STANDARD = set(sys.stdlib_module_names) | {"__future__"}

#: room -> third-party packages it may import, as the architecture's table has them
ALLOWED = {
    # processing: the plugin that QGIS ships, for the menu's dialog
    "plugin": {"qgis", "osgeo", "processing"},
    "algorithms": {"qgis", "osgeo"},
    # pyproj is what geopandas and shapely results are transformed with
    "engine": {
        "numpy",
        "rasterio",
        "shapely",
        "geopandas",
        "pyogrio",
        "pyproj",
        "scipy",
        "matplotlib",
        "torch",
        "affine",
    },
    "models": {"torch", "numpy", "einops", "safetensors"},
}
#: rooms of our own that a room may import, beside itself
#: (provider.py lists the algorithms)
ROOMS = {
    "plugin": {"engine", "algorithms"},
    "algorithms": {"engine", "plugin"},
    "engine": {"models"},
    "models": set(),
}


def imports(path: Path) -> list[tuple[int, str]]:
    """Every module a file imports, absolute: kestrel's own as ``kestrel.room.module``."""
    package = ("kestrel", *path.relative_to(ROOT).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def violations(path: Path) -> list[str]:
    room = path.relative_to(ROOT).parts[0]
    scipy_allowed = room == "models" and "classical" in path.parts
    bad = []
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] == "kestrel":
            target = parts[1] if len(parts) > 1 else ""
            ok = target == room or target in ROOMS[room]
            if room in QGIS_SIDE and target == "engine":
                ok = parts[2:3] == ["job"] or parts[2:] == []
        else:
            ok = parts[0] in STANDARD or parts[0] in ALLOWED[room] or (scipy_allowed and parts[0] == "scipy")
            if room in QGIS_SIDE and parts[0] == "osgeo":
                ok = parts[1:2] in (["gdal"], ["ogr"], ["osr"])
        if not ok:
            bad.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    return bad


FILES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_room_imports_only_what_it_may(path):
    assert violations(path) == []


def test_the_check_sees_a_violation(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for text in ("import torch", "from ..engine import run", "from ..models.task import Task"):
        bad = tmp_path / "plugin" / "bad.py"
        bad.parent.mkdir(exist_ok=True)
        bad.write_text(text)
        assert violations(bad), text


def test_engine_names_no_model():
    """The engine asks the registry; a model's folder name in its code would be a hidden arrow."""
    folders = [p.name for p in (ROOT / "models").iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    assert "sar_ships" in folders
    for path in (ROOT / "engine").rglob("*.py"):
        for _, module in imports(path):
            assert not any(f"models.{folder}" in module for folder in folders), f"{path}: {module}"


@pytest.mark.parametrize("path", [p for p in FILES if p.relative_to(ROOT).parts[0] in QGIS_SIDE])
def test_qgis_side_is_valid_python_39(path):
    """QGIS 3.22 on Windows brings Python 3.9."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_engine_job_is_valid_python_39_and_standard_library_only():
    for name in ("job.py", "launch.py", "__init__.py"):
        path = ROOT / "engine" / name
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    assert all(module.split(".")[0] in STANDARD for _, module in imports(ROOT / "engine" / "job.py"))


def test_pyproject_lists_every_package():
    """The root is package kestrel, so setuptools cannot find packages by itself."""
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"kestrel"} | {
        ".".join(("kestrel", *path.parent.relative_to(ROOT).parts))
        for room in ALLOWED
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(listed) == found
