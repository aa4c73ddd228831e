"""PYTHON_ARCHIVE: what is unpacked, what is refused, and that nothing is left of what was refused."""

import errno
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from kestrel.plugin.installing import archive as module
from kestrel.plugin.installing.archive import unpack
from kestrel.plugin.installing.errors import InstallError
from kestrel.plugin.installing.interpreters import find_base
from kestrel.plugin.installing.platforms import System
from kestrel.tests.support.simulated_system import says

FAKE = f"#!/bin/sh\necho '{says()}'\n".encode()


def _file(name: str, data: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def _special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def _link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return _special(name, tarfile.SYMTYPE, target)


PYTHON = (
    _special("python", tarfile.DIRTYPE),
    _file("python/bin/python3.12", FAKE, 0o4777),
    _link("python/bin/python3", "python3.12"),
    _file("python/lib/readme", b"text"),
    _special("python/lib/same", tarfile.LNKTYPE, "python/lib/readme"),
    _link("python/lib/up", "../bin/python3.12"),
)


def _pack(path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...]) -> tuple[Path, str]:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _tree(folder: Path) -> list[str]:
    return sorted(os.fspath(path.relative_to(folder)) for path in folder.rglob("*"))


def test_feature_a_python_is_unpacked_once_and_used(tmp_path: Path) -> None:
    path, digest = _pack(tmp_path / "python.tar.gz", PYTHON)
    home = tmp_path / "home of Jürgen"
    base = find_base("", path, digest.upper(), home, System())
    assert base.python == os.fspath(home / "pythons" / digest[:12] / "python/bin/python3")
    assert (base.version, base.source) == ((3, 12), "PYTHON_ARCHIVE")
    folder = home / "pythons" / digest[:12] / "python"
    assert (folder / "lib/same").read_bytes() == (folder / "lib/readme").read_bytes() == b"text"
    # neither the set-user-id bit nor what others may write
    assert (folder / "bin/python3.12").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(folder / "lib/up") == "../bin/python3.12"
    made = (folder / "lib/readme").stat().st_ino
    assert find_base("", path, digest, home, System()) == base
    assert (folder / "lib/readme").stat().st_ino == made
    assert [entry.name for entry in (home / "pythons").iterdir()] == [digest[:12]]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ((_file("../evil"),), r"leads outside \(\.\./evil\)"),
        ((_file("python/../../evil"),), "leads outside"),
        ((_file("/tmp/evil"),), "leads outside"),
        ((_file("C:/evil"),), "leads outside"),
        ((_file("python\\..\\..\\evil"),), "leads outside"),
        ((_link("python/a", "/etc"),), "a link that leads outside"),
        ((_link("python/a", "../../evil"),), "a link that leads outside"),
        ((_link("python/a", "b/../../.."),), "a link that leads outside"),
        ((_link("python/a", "."), _file("python/a/b")), "writes through the link python/a"),
        # the same folder for macOS and Windows
        ((_link("python/A", "."), _link("python/a/b", "../..")), "writes through the link python/a"),
        ((_link("python/u\u0308", "."), _file("python/\u00fc/b")), "writes through the link"),
        ((_special("python/a", tarfile.LNKTYPE, "../evil"),), "leads outside"),
        ((_special("python/a", tarfile.LNKTYPE, "python/none"),), "what it does not hold"),
        (
            (_link("python/a", "b"), _special("python/c", tarfile.LNKTYPE, "python/a")),
            "what it does not hold",
        ),
        ((_special("python/a", tarfile.CHRTYPE),), "a device or pipe"),
        ((_special("python/a", tarfile.FIFOTYPE),), "a device or pipe"),
        ((_file("python/a"), _file("python/a")), "holds python/a twice"),
    ],
)
def test_fault_members_that_reach_outside(tmp_path: Path, members: tuple, words: str) -> None:
    path, digest = _pack(tmp_path / "python.tar.gz", (*PYTHON, *members))
    home = tmp_path / "a" / "b" / "home"
    with pytest.raises(InstallError, match=words) as caught:
        unpack(path, digest, home)
    assert caught.value.code == "archive"
    # not even the empty folder for Pythons is left, and nothing was written beside it
    assert _tree(tmp_path) == ["a", "a/b", "python.tar.gz"]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _wrong_sum(data: bytes) -> bytes:
    """Take away the blocks that end a tar, so that it is read to gzip's own sum, and change that."""
    data = gzip.compress(gzip.decompress(data).rstrip(b"\0"))
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


@pytest.mark.parametrize("damage", [_cut, _wrong_sum, lambda data: b"", lambda data: b"no archive" * 99])
def test_fault_damaged_archive(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path, _ = _pack(tmp_path / "python.tar.gz", (*PYTHON, _file("python/big", b"\1" * 512 * 300)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InstallError, match=r"cannot be unpacked \(") as caught:
        unpack(path, hashlib.sha256(path.read_bytes()).hexdigest(), tmp_path / "home")
    assert caught.value.code == "archive"
    assert not (tmp_path / "home").exists()


def test_fault_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full in the midst of a member: what was there stays, nothing is added; with space it unpacks."""
    path, digest = _pack(tmp_path / "python.tar.gz", (*PYTHON, _file("python/lib/big", bytes(3_000_000))))
    home = tmp_path / "home"
    (home / "weights").mkdir(parents=True)
    real = Path.open

    class Full(io.FileIO):
        def write(self, block: bytes) -> int:
            if self.tell() + len(block) > 2_000_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(block)

    def small(file: Path, mode: str = "r", *arguments: object) -> object:
        return Full(file, "xb") if mode == "xb" else real(file, mode, *arguments)

    with monkeypatch.context() as full:
        full.setattr(Path, "open", small)
        with pytest.raises(InstallError, match="No space left on device") as caught:
            unpack(path, digest, home)
    assert caught.value.hint.startswith("Free some space")
    assert _tree(home) == ["weights"]
    assert unpack(path, digest, home).is_file()


def test_exception_sum_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, digest = _pack(tmp_path / "python.tar.gz", PYTHON)
    home = tmp_path / "home"
    with pytest.raises(InstallError, match=f"is not the file with that sha256 .it has {digest}"):
        unpack(path, "0" * 64, home)
    with pytest.raises(InstallError, match="without ARCHIVE_SHA256"):
        unpack(path, "", home)
    with pytest.raises(InstallError, match="cannot be read"):
        unpack(tmp_path / "none.tar.gz", digest, home)
    # refused before anything is made
    assert not home.exists()
    other, other_digest = _pack(tmp_path / "other.tar.gz", (_file("python/readme"),))
    with pytest.raises(InstallError, match="holds no Python"):
        unpack(other, other_digest, home)
    monkeypatch.setattr(module, "LARGEST_BYTES", 100)
    with pytest.raises(InstallError, match="far larger than a Python"):
        unpack(*_pack(tmp_path / "large.tar.gz", (*PYTHON, _file("python/large", bytes(200)))), home)
    monkeypatch.setattr(module, "MOST_MEMBERS", 3)
    with pytest.raises(InstallError, match="far larger than a Python"):
        unpack(path, digest, home)
    assert not home.exists()


def test_exception_an_unpacked_python_that_fails_the_probe_goes_again(tmp_path: Path) -> None:
    old = f"#!/bin/sh\necho '{says(version=[3, 9])}'\n".encode()
    path, digest = _pack(tmp_path / "old.tar.gz", (_file("python/bin/python3", old, 0o755),))
    with pytest.raises(InstallError, match=r"PYTHON_ARCHIVE: .* is Python 3\.9"):
        find_base("", path, digest, tmp_path / "home", System())
    assert _tree(tmp_path / "home") == []


def test_exception_home_that_is_a_file(tmp_path: Path) -> None:
    path, digest = _pack(tmp_path / "python.tar.gz", PYTHON)
    (tmp_path / "home").write_text("")
    with pytest.raises(InstallError, match=r"cannot be unpacked into .*home/pythons"):
        unpack(path, digest, tmp_path / "home")


def test_fault_cancelled_at_every_moment(tmp_path: Path) -> None:
    """Wherever it is cancelled, nothing is left; uncancelled it takes as many questions as counted."""
    path, digest = _pack(tmp_path / "python.tar.gz", PYTHON)
    asked = []
    unpack(path, digest, tmp_path / "whole", lambda: bool(asked.append(1)))
    assert len(asked) > len(PYTHON)
    for moment in range(len(asked)):
        answers = iter([False] * moment + [True])
        home = tmp_path / str(moment)
        with pytest.raises(InstallError) as caught:
            unpack(path, digest, home, lambda answers=answers: next(answers))
        assert caught.value.code == "cancelled"
        assert not home.exists()


def test_fault_another_process_unpacks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both end with the same folder; the later one throws its copy away."""
    path, digest = _pack(tmp_path / "python.tar.gz", PYTHON)
    home = tmp_path / "home"
    keep = module._keep

    def late(part: Path, folder: Path) -> None:
        monkeypatch.setattr(module, "_keep", keep)
        # the other one has another process id
        monkeypatch.setattr(module.os, "getpid", lambda: 1)
        unpack(path, digest, home)
        keep(part, folder)

    monkeypatch.setattr(module, "_keep", late)
    assert unpack(path, digest, home) == home / "pythons" / digest[:12] / "python/bin/python3"
    assert [entry.name for entry in (home / "pythons").iterdir()] == [digest[:12]]
