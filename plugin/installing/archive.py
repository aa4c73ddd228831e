"""Unpack a relocatable CPython from a ``.tar.gz`` that the user points at.

tarfile's own filters are younger than the Python 3.9 that runs QGIS 3.22 on Windows, so every member is
looked at here before anything is written, and files are written by hand. The folder becomes real by its
last rename.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import posixpath
import re
import shutil
import tarfile
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

from .errors import InstallError

#: An unpacked CPython has about 0.2 GB in 5000 files; far more is no Python.
LARGEST_BYTES, MOST_MEMBERS = 3_000_000_000, 200_000
CHUNK = 1 << 20
AGAIN = "Download the archive again, or take its sha256 from where it came from."
#: Where an unpacked archive keeps its interpreter, python-build-standalone's layouts first.
PLACES = (
    "python/bin/python3",
    "python/python.exe",
    "python/install/bin/python3",
    "python/install/python.exe",
    "bin/python3",
    "python.exe",
)


def unpack(archive: Path, sha256: str, home: Path, cancelled: Callable[[], bool] = lambda: False) -> Path:
    """Return the interpreter in ``home/pythons/<12 hex of the sha256>``, unpacked there if it is not yet.

    Raises InstallError (``archive``, ``cancelled``); then nothing is left of the attempt.
    """
    digest = _digest(archive, cancelled)
    if not sha256:
        raise InstallError(
            "archive",
            f"{archive.name} is given without ARCHIVE_SHA256.",
            "Give the sum that the archive's maker states.",
        )
    if digest != sha256.strip().lower():
        raise InstallError(
            "archive", f"{archive.name} is not the file with that sha256 (it has {digest}).", AGAIN
        )
    folder = home / "pythons" / digest[:12]
    if not folder.is_dir():
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        made = [above for above in (folder.parent, home) if not above.exists()]
        try:
            part.mkdir(parents=True)
            _extract(archive, part, cancelled)
            _interpreter(part, archive)
            _keep(part, folder)
        # ValueError: a header that tarfile reads but does not understand
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
            raise InstallError("archive", f"{archive.name} cannot be unpacked ({error}).", AGAIN) from None
        except OSError as error:
            raise InstallError(
                "archive",
                f"{archive.name} cannot be unpacked into {folder.parent} ({error.strerror or error}).",
                "Free some space, make the folder writable, or set the variable KESTREL_HOME.",
            ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
            for above in made:
                # with something in it, the new Python or another process's, it stays
                with contextlib.suppress(OSError):
                    above.rmdir()
    return _interpreter(folder, archive)


def _keep(part: Path, folder: Path) -> None:
    """Make ``part`` real; another process that was first with the same archive made the same."""
    try:
        os.replace(part, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _digest(archive: Path, cancelled: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    try:
        with archive.open("rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
                _check(cancelled)
    except OSError as error:
        raise InstallError(
            "archive", f"{archive} cannot be read ({error.strerror}).", "Choose an existing .tar.gz file."
        ) from None
    return digest.hexdigest()


def _interpreter(folder: Path, archive: Path) -> Path:
    for place in PLACES:
        if (folder / place).is_file():
            return folder / place
    raise InstallError(
        "archive",
        f"{archive.name} holds no Python ({PLACES[0]} or {PLACES[1]} is expected).",
        "Choose a relocatable CPython, an install_only archive of python-build-standalone for example.",
    )


def _extract(archive: Path, folder: Path, cancelled: Callable[[], bool]) -> None:
    """Write every member; raises InstallError for one that could reach outside ``folder``."""
    left, links, written = LARGEST_BYTES, set(), set()
    with tarfile.open(archive, "r:gz") as tar:
        for number, member in enumerate(tar):
            _check(cancelled)
            name = _safe_name(member, archive, links)
            left -= member.size
            if left < 0 or number >= MOST_MEMBERS:
                raise _refused(archive, "is far larger than a Python")
            if name == ".":
                continue
            path = folder / name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            if name in written:
                raise _refused(archive, f"holds {name} twice")
            written.add(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                links.add(_key(name))
                os.symlink(_safe_target(member, name, archive), path)
            elif member.islnk():
                source = _plain(member.linkname, archive)
                if source not in written or _key(source) in links:
                    raise _refused(archive, f"links {name} to what it does not hold")
                shutil.copy2(folder / source, path)
            elif member.isfile():
                _write(tar, member, path, cancelled)
            else:
                raise _refused(archive, f"holds a device or pipe ({name})")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, cancelled: Callable[[], bool]) -> None:
    source = tar.extractfile(member)
    assert source is not None
    with source, path.open("xb") as file:
        while block := source.read(CHUNK):
            file.write(block)
            _check(cancelled)
    # no set-user-id, nothing that others may write
    os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)


def _safe_name(member: tarfile.TarInfo, archive: Path, links: set[str]) -> str:
    """Return the member's path below the folder; nothing is written through a link."""
    name = _plain(member.name, archive)
    above = name
    while above := posixpath.dirname(above):
        if _key(above) in links:
            raise _refused(archive, f"writes through the link {above}")
    return name


def _key(name: str) -> str:
    """Return what macOS and Windows hold for the same name: any case, any Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def _plain(name: str, archive: Path) -> str:
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise _refused(archive, f"holds a path that leads outside ({name[:80]})")
    return posixpath.normpath(name)


def _safe_target(member: tarfile.TarInfo, name: str, archive: Path) -> str:
    """Return where a symbolic link points; leading ``..`` only, and not above the folder.

    A ``..`` behind a name could follow another link first and then lead outside.
    """
    target = member.linkname
    parts = target.split("/")
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    depth = name.count("/")
    plain = parts[climbs:]
    if (
        target.startswith("/")
        or "\\" in target
        or re.match(r"[A-Za-z]:", target)
        or ".." in plain
        or climbs > depth
        or not target
    ):
        raise _refused(archive, f"holds a link that leads outside ({name[:60]} -> {target[:60]})")
    return target


def _refused(archive: Path, what: str) -> InstallError:
    return InstallError(
        "archive", f"{archive.name} {what}; nothing of it was used.", "Take an archive you trust."
    )


def _check(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise InstallError("cancelled", "The installation was cancelled.", "Nothing was changed.")
