"""Which Python a runtime is built on: three simulated systems, fake interpreters, real children."""

import ntpath
import os
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from kestrel.plugin.installing import interpreters, platforms
from kestrel.plugin.installing.errors import InstallError
from kestrel.plugin.installing.interpreters import find_base
from kestrel.plugin.installing.platforms import System
from kestrel.tests.support.simulated_system import SimulatedSystem, says

OLD = says(version=[3, 9])
GOOD = says()
STORE = r"C:\Users\me\AppData\Local\Microsoft\WindowsApps\python3.12.exe"
FRAMEWORK = "/Library/Frameworks/Python.framework/Versions"


def _linux() -> tuple[list[tuple[str, str]], dict]:
    """Every place that Linux has, in the order of the search, and how the machine knows of it."""
    order = [
        ("variable KESTREL_PYTHON", "/opt/theirs/python"),
        ("PATH", "/usr/bin/python3.11"),
        ("PATH", "/usr/local/bin/python3.12"),
        ("PATH", "/home/me/bin/python3.13"),
        ("QGIS's own Python", "/usr/bin/python3"),
    ]
    return order, {
        "environ": {"KESTREL_PYTHON": "/opt/theirs/python"},
        "path": {os.path.basename(python): python for _, python in order[1:4]},
        "application": "/usr/bin",
    }


def _windows() -> tuple[list[tuple[str, str]], dict]:
    order = [
        ("variable KESTREL_PYTHON", r"D:\Theirs\python.exe"),
        ("Windows registry", r"C:\Python311\python.exe"),
        ("Windows registry", r"C:\Users\me\Python312-32\python.exe"),
        ("Windows registry", r"C:\Python312\python.exe"),
        ("py", r"E:\Python313\python.exe"),
        ("py", r"E:\Tools\python.exe"),
        ("PATH", r"F:\bin\python3.11.exe"),
        ("PATH", r"F:\bin\python3.12.exe"),
        ("QGIS's own Python", "C:/OSGeo4W/apps/Python312/python.exe"),
        ("QGIS's own Python", "C:/OSGeo4W/bin/python3.exe"),
    ]
    return order, {
        "environ": {"KESTREL_PYTHON": r"D:\Theirs\python.exe"},
        "registered": (
            ("3.12-32", order[2][1]),
            ("3.12", order[3][1]),
            ("3.11", order[1][1]),
            ("3.13", STORE),
        ),
        "launcher": (order[5][1], STORE, order[4][1], order[3][1]),
        "path": {"python3.11.exe": order[6][1], "python3.12.exe": order[7][1], "python3.13.exe": STORE},
        "application": r"C:\OSGeo4W\bin",
    }


def _macos() -> tuple[list[tuple[str, str]], dict]:
    order = [
        ("variable KESTREL_PYTHON", "/opt/theirs/python"),
        ("Python framework", f"{FRAMEWORK}/3.11/bin/python3.11"),
        ("Python framework", f"{FRAMEWORK}/3.13/bin/python3.13"),
        ("Homebrew", "/opt/homebrew/opt/python@3.12/bin/python3.12"),
        ("Homebrew", "/opt/homebrew/bin/python3.13"),
        ("Homebrew", "/usr/local/opt/python@3.11/bin/python3.11"),
        ("PATH", "/Users/me/bin/python3.12"),
        ("QGIS's own Python", "/Applications/QGIS.app/Contents/MacOS/bin/python3"),
    ]
    return order, {
        "environ": {"KESTREL_PYTHON": "/opt/theirs/python"},
        "path": {"python3.12": order[6][1]},
        "application": "/Applications/QGIS.app/Contents/MacOS",
    }


#: System, its places in their order, and QGIS itself: what ``sys.executable`` is there.
SYSTEMS = {
    "linux": (_linux, "/usr/bin/qgis"),
    "win32": (_windows, r"C:\OSGeo4W\bin\qgis-bin.exe"),
    "darwin": (_macos, "/Applications/QGIS.app/Contents/MacOS/QGIS"),
}


def _find(system: System, home: Path, named: str = "", cancelled=lambda: False) -> interpreters.Base:
    return find_base(named, None, "", home, system, cancelled)


@pytest.mark.parametrize("platform", SYSTEMS)
def test_feature_every_place_is_asked_in_its_order(tmp_path: Path, platform: str) -> None:
    """With all places too old but the n-th, exactly the places up to the n-th are started, in order."""
    make, qgis = SYSTEMS[platform]
    order, knows = make()
    for last, (source, python) in enumerate(order):
        folder = tmp_path / str(last)
        folder.mkdir()
        programs = {path: OLD for _, path in order} | {python: GOOD, qgis: GOOD, STORE: GOOD}
        system = SimulatedSystem(folder, platform, programs, **knows)
        base = _find(system, tmp_path)
        assert (base.python, base.source, base.version) == (python, source, (3, 12))
        assert system.started == [path for _, path in order[: last + 1]]
        assert len(base.tried) == last


@pytest.mark.parametrize("platform", SYSTEMS)
def test_exception_no_python_names_what_was_looked_at(tmp_path: Path, platform: str) -> None:
    make, qgis = SYSTEMS[platform]
    order, knows = make()
    programs = {path: OLD for _, path in order} | {qgis: GOOD, STORE: GOOD}
    system = SimulatedSystem(tmp_path, platform, programs, **knows)
    with pytest.raises(InstallError) as caught:
        _find(system, tmp_path)
    assert caught.value.code == "no_interpreter"
    assert qgis not in system.started
    assert STORE not in system.started
    for _, python in order:
        assert f"{python} (" in caught.value.message
    assert "PYTHON_ARCHIVE" in caught.value.hint
    assert {"linux": "distribution", "win32": "python.org", "darwin": "Homebrew"}[
        platform
    ] in caught.value.hint


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_fault_the_stub_of_sys_executable_is_never_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    """On a machine with nothing but QGIS, nothing is started: no Python, and not QGIS instead of one."""
    stub = tmp_path / "QGIS"
    stub.write_text(f"#!/bin/sh\ntouch '{tmp_path}/stub-was-started'\necho '{GOOD}'\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", os.fspath(stub))
    # the real lookups of files, but for a PATH without a Python
    monkeypatch.setattr(System, "platform", platform)
    monkeypatch.setattr(System, "environ", {"PATH": os.fspath(tmp_path)})
    monkeypatch.setattr(interpreters, "_macos", lambda system: iter(()))
    with pytest.raises(InstallError, match=r"No Python 3\.11 to 3\.13"):
        _find(System(), tmp_path)
    assert not (tmp_path / "stub-was-started").exists()


def test_feature_an_empty_alias_of_the_store_is_not_started(tmp_path: Path) -> None:
    alias = r"D:\Aliases\python.exe"
    system = SimulatedSystem(tmp_path, "win32", {alias: GOOD}, registered=(("3.12", alias),))
    system._scripts[alias].write_text("")
    with pytest.raises(InstallError):
        _find(system, tmp_path)
    assert system.started == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (OLD, "is Python 3.9; Python 3.11 to 3.13 is needed"),
        (says(version=[3, 14]), "is Python 3.14; Python 3.11 to 3.13 is needed"),
        (says(bits=32), "is a 32-bit Python"),
        (says(missing=["ssl"]), "lacks ssl."),
        ("KESTREL {broken", "is no Python"),
        ("GNU bash, version 5", "is no Python"),
        ('KESTREL {"version": 3}', "is no Python"),
    ],
)
def test_exception_a_typed_python_is_refused_never_replaced(tmp_path: Path, answer: str, words: str) -> None:
    typed = "/opt/typed/python"
    system = SimulatedSystem(
        tmp_path,
        "linux",
        {typed: answer, "/usr/bin/python3.12": GOOD},
        path={"python3.12": "/usr/bin/python3.12"},
    )
    with pytest.raises(InstallError) as caught:
        _find(system, tmp_path, typed)
    assert caught.value.code == "interpreter"
    assert caught.value.message.startswith(f"PYTHON: {typed} {words}")
    assert system.started == [typed]


@pytest.mark.parametrize(
    ("platform", "release", "words"),
    [
        ("linux", "ID=debian", "lacks ensurepip; install the package python3.12-venv"),
        ("linux", "ID=linuxmint\nID_LIKE=ubuntu", "install the package python3.12-venv"),
        ("linux", "ID=fedora", "install the package python3.12 with its ensurepip wheels"),
        ("linux", "ID=void", "install your distribution's venv package for Python 3.12"),
        ("darwin", "", "lacks ensurepip."),
    ],
)
def test_exception_missing_ensurepip_names_the_package(
    tmp_path: Path, platform: str, release: str, words: str
) -> None:
    typed = "/opt/typed/python"
    system = SimulatedSystem(tmp_path, platform, {typed: says(missing=["ensurepip"])}, release=release)
    with pytest.raises(InstallError) as caught:
        _find(system, tmp_path, typed)
    assert words in caught.value.message


def test_exception_a_variable_that_names_nothing_is_told(tmp_path: Path) -> None:
    system = SimulatedSystem(tmp_path, "linux", {}, environ={"KESTREL_PYTHON": "/gone/python"})
    with pytest.raises(InstallError, match=r"/gone/python \(variable KESTREL_PYTHON\) does not exist"):
        _find(system, tmp_path)
    with pytest.raises(InstallError, match="PYTHON: /gone/typed does not exist"):
        _find(system, tmp_path, "/gone/typed")


def test_feature_the_real_probe_of_a_real_python(tmp_path: Path) -> None:
    base = _find(System(), tmp_path, sys.executable)
    assert base.version == tuple(sys.version_info[:2])
    assert base.source == "PYTHON"


def test_feature_the_probe_hides_the_callers_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the current folder or PYTHONPATH named ssl, as QGIS's plugins may have, misleads nobody."""
    (tmp_path / "ssl.py").write_text("raise RuntimeError('never')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path))
    assert _find(System(), tmp_path, sys.executable).version == tuple(sys.version_info[:2])


def test_fault_an_interpreter_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "PROBE_S", 0.2)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    with pytest.raises(InstallError, match="did not answer within"):
        _find(System(), tmp_path, os.fspath(script))
    with pytest.raises(InstallError) as caught:
        _find(System(), tmp_path, os.fspath(script), lambda: True)
    assert caught.value.code == "cancelled"


def test_fault_a_program_that_leaves_another_one_behind(tmp_path: Path) -> None:
    """The answer counts when the program has ended, however long what it started lives on."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 3 &\necho '{GOOD}'\n")
    script.chmod(0o755)
    begun = time.monotonic()
    assert _find(System(), tmp_path, os.fspath(script)).version == (3, 12)
    assert time.monotonic() - begun < 2.5


def test_feature_the_launchers_list_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list as ``py -0p`` of 3.11 and later prints it, and as older launchers did."""
    script = tmp_path / "py"
    script.write_text(
        "#!/bin/sh\n"
        "printf '%s\\r\\n' ' -V:3.12 *        C:\\Python312\\python.exe'\n"
        "printf '%s\\r\\n' ' -V:3.11-32       D:\\a b\\python.exe'\n"
        "printf '%s\\r\\n' ' -3.11-64   C:\\Old\\python.exe *' 'No such runtime'\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(System, "platform", "win32")
    monkeypatch.setattr(System, "environ", {"PATH": os.fspath(tmp_path)})
    assert System().launcher() == [r"C:\Python312\python.exe", r"D:\a b\python.exe", r"C:\Old\python.exe"]


class _Key(str):
    """A key of the simulated registry: its path, to be used in a with statement."""

    def __enter__(self) -> "_Key":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Winreg:
    """As much of winreg as PEP 514 needs: an ExecutablePath, a folder only, one half removed."""

    HKEY_CURRENT_USER, HKEY_LOCAL_MACHINE = "HKCU", "HKLM"
    KEYS: ClassVar = {
        r"HKCU\Software\Python": ["PythonCore"],
        r"HKCU\Software\Python\PythonCore": ["3.12", "3.10"],
        r"HKCU\Software\Python\PythonCore\3.12\InstallPath": [],
        r"HKLM\Software\Python": ["PythonCore", "PyLauncher"],
        r"HKLM\Software\Python\PythonCore": ["3.11"],
        r"HKLM\Software\Python\PythonCore\3.11\InstallPath": [],
    }

    def OpenKey(self, root: str, path: str) -> _Key:
        if f"{root}\\{path}" not in self.KEYS:
            raise FileNotFoundError(2, path)
        return _Key(f"{root}\\{path}")

    def EnumKey(self, key: _Key, number: int) -> str:
        if number >= len(self.KEYS[key]):
            raise OSError(259, "no more data")
        return self.KEYS[key][number]

    def QueryValueEx(self, key: _Key, _name: str) -> tuple[str, int]:
        if "3.11" in key:
            raise FileNotFoundError(2, "ExecutablePath")
        return r"C:\Users\me\Python312\python.exe", 1

    def QueryValue(self, _key: _Key, _name: None) -> str:
        return "C:\\Python311"


def test_feature_the_registry_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "winreg", _Winreg())
    monkeypatch.setattr(platforms.os.path, "join", ntpath.join)
    assert list(platforms._registered()) == [
        ("3.12", r"C:\Users\me\Python312\python.exe"),
        ("3.11", r"C:\Python311\python.exe"),
    ]
