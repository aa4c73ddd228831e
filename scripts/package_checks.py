"""What the plugin site checks on an upload, asked before uploading: structure, then three scans.

Required metadata, LICENSE, size, names and binaries are refused by the site outright; Bandit's high
findings and detected secrets block an upload; the Qt 6 verdict is shown beside the plugin.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: The plugin site's limit, in bytes.
LIMIT = 25_000_000
REQUIRED = ["name", "description", "version", "qgisMinimumVersion", "author", "email", "about", "tracker"]
# without the last, qgis_process does not list the plugin
REQUIRED += ["repository", "license", "hasProcessingProvider"]
FORBIDDEN_PARTS = {".git", "__pycache__", "__MACOSX", ".DS_Store", "tests", "scripts", "benchmarks", ".venv"}
EXECUTABLES = {".so", ".dll", ".exe", ".sh", ".bat", ".cmd", ".com", ".dylib", ".pyd", ".pyc", ".whl", ".jar"}
#: The only file that may hold bytes which are no text.
BINARY = ".safetensors"
#: QGIS for Qt 6 gives these their old names again (python/PyQt/PyQt6/QtCore.py).
SHIMMED = {"QVariant"}
#: Gone in PyQt6.
GONE = {"exec_", "QRegExp", "resources_rc", "QDesktopWidget", "qrand", "qsrand"}


def metadata(path: Path) -> dict[str, str]:
    """Return the entries of a metadata.txt; {} where it has no section ``general``."""
    return _entries(path.read_text(encoding="utf-8"))


def structure(path: Path) -> list[str]:
    """Return what is wrong with the zip's names, sizes, files and metadata, a sentence each."""
    found = []
    size = path.stat().st_size
    if size > LIMIT:
        found.append(f"{path.name} has {size:,} B; the plugin site takes {LIMIT:,}.")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            found.append("A name occurs twice.")
        for info in archive.infolist():
            found += [f"{info.filename} {problem}." for problem in _member_problems(archive, info)]
        folders = {name.split("/")[0] for name in names}
        if folders != {"kestrel"}:
            found.append(f"The zip holds {', '.join(sorted(folders))}; it must hold the one folder kestrel.")
        for needed in ("__init__.py", "metadata.txt", "LICENSE", "CHANGELOG.md"):
            if f"kestrel/{needed}" not in names:
                found.append(f"{needed} is missing.")
        if "kestrel/metadata.txt" in names:
            entries = _entries(archive.read("kestrel/metadata.txt").decode("utf-8"))
            found += [f"metadata.txt has no {key}." for key in REQUIRED if not entries.get(key)]
            icon = entries.get("icon")
            if icon and f"kestrel/{icon}" not in names:
                found.append(f"metadata.txt names the icon {icon}, which is not in the zip.")
    return found


def scans(path: Path, say: Callable[[str], None]) -> list[str]:
    """Unpack the zip and return what Bandit, detect-secrets and the Qt 6 scan object to.

    ``say`` is told what only warns. Raises FileNotFoundError where the tools are not installed.
    """
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(unpacked)
        folder = Path(unpacked) / "kestrel"
        return bandit(folder, say) + secrets(folder) + qt6(folder)


def bandit(folder: Path, say: Callable[[str], None]) -> list[str]:
    """Return Bandit's findings of high severity; tell how many medium ones there are."""
    answer = json.loads(_run(["bandit", "--quiet", "--recursive", ".", "--format", "json"], folder, (0, 1)))
    found, medium = [], 0
    for result in answer["results"]:
        medium += result["issue_severity"] == "MEDIUM"
        if result["issue_severity"] == "HIGH":
            where = f"{result['filename']}:{result['line_number']}"
            found.append(f"Bandit, high: {where} {result['test_id']} {result['issue_text']}")
    found += [f"Bandit could not read {error['filename']}." for error in answer["errors"]]
    say(f"package: Bandit: {len(found)} high, {medium} medium findings")
    return found


def secrets(folder: Path) -> list[str]:
    """Return what detect-secrets finds beyond .secrets.baseline, which travels in the zip."""
    baseline = folder / ".secrets.baseline"
    if not baseline.is_file():
        return ["There is no .secrets.baseline."]
    known = _secrets_in(json.loads(baseline.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as aside:
        # the scan takes its settings from the file and writes what it finds into it
        found = Path(aside) / baseline.name
        shutil.copyfile(baseline, found)
        _run(["detect_secrets", "scan", "--all-files", "--baseline", str(found), "."], folder, (0,))
        results = _secrets_in(json.loads(found.read_text(encoding="utf-8")))
    return [
        f"detect-secrets: {name}:{line} {kind}. If it is none, add it to the baseline from the unpacked zip: "
        "detect-secrets scan --all-files --baseline .secrets.baseline ."
        for (name, digest, kind), line in sorted(results.items())
        # its own hashes look like secrets to the scan
        if (name, digest, kind) not in known and name != baseline.name
    ]


def qt6(folder: Path) -> list[str]:
    """Return what fails under Qt 6 in plugin/ and algorithms/: old modules, calls, unscoped enums."""
    found = []
    for path in sorted([*folder.glob("plugin/**/*.py"), *folder.glob("algorithms/**/*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = path.relative_to(folder).as_posix()
        found += [f"Qt 6: {name}:{line} {text}" for line, text in qt6_problems(tree)]
    return found


def qt6_problems(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, what) for each thing in a module that Qt 6 lacks.

    An enumeration's value must be reached through its type: ``Qgis.MessageLevel.Warning``, not
    ``Qgis.Warning``. Read from the source alone, so it needs no QGIS, of either kind.
    """
    whole = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("PyQt5", "PyQt6"):
            yield node.lineno, f"imports from {node.module}: use qgis.PyQt"
        elif isinstance(node, ast.Name | ast.Attribute):
            last = node.id if isinstance(node, ast.Name) else node.attr
            if last in GONE:
                yield node.lineno, f"uses {last}, which PyQt6 lacks"
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                free = id(node) not in whole and id(node) not in called
                if free and node.value.id not in SHIMMED and _unscoped(node.value.id, node.attr):
                    yield node.lineno, f"uses {node.value.id}.{node.attr} without its enumeration's name"


def _unscoped(owner: str, name: str) -> bool:
    """Whether ``owner.name`` reads like an enumeration's value reached through a class of Qt or QGIS."""
    is_class = owner == "Qt" or owner.startswith("Qgis") or bool(re.match("Q([A-Z]|gs)", owner))
    is_constant = name.isupper() or "_" in name
    is_enumeration = name.endswith(("Type", "Flag", "Flags"))
    return is_class and name[:1].isupper() and not is_constant and not is_enumeration


def _secrets_in(baseline: dict[str, Any]) -> dict[tuple[str, str, str], int]:
    """Return a baseline's findings: (file, hash, kind) -> line."""
    hits = [hit for each in baseline["results"].values() for hit in each]
    return {(hit["filename"], hit["hashed_secret"], hit["type"]): hit["line_number"] for hit in hits}


def _member_problems(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> list[str]:
    path = Path(info.filename)
    problems = []
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
        problems.append("leaves the folder")
    if FORBIDDEN_PARTS.intersection(path.parts):
        problems.append("does not belong into a plugin")
    if path.suffix.lower() in EXECUTABLES:
        problems.append("is an executable or a library")
    if info.external_attr >> 16 & 0o111:
        problems.append("is marked executable")
    if path.suffix != BINARY and b"\0" in archive.read(info)[:8000]:
        problems.append("is binary")
    return problems


def _entries(text: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return dict(parser["general"]) if parser.has_section("general") else {}


def _run(arguments: list[str], folder: Path, fine: tuple[int, ...]) -> str:
    """Run a module of this Python in ``folder``; return its output, raise RuntimeError with its words."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in fine:
        raise RuntimeError(f"{arguments[0]} failed: {done.stderr or done.stdout}")
    return done.stdout
