"""Install weights below KESTREL_HOME/weights: a pack, or a single .safetensors file.

A pack is a zip that holds ``pack.json`` and the files it lists, beside each other:
``{"name": ..., "model": ..., "files": [{"name": ..., "sha256": ..., "size": ...}, ...]}``. Every file
is copied beside its place, checked there, and renamed when all are right, so that a refusal, a full
disk or a cancel changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .. import paths
from .errors import InstallError
from .weight_check import (
    FILE_LIMIT,
    SUFFIX,
    Header,
    check_shapes,
    file_name_problem,
    model_of,
    read_header,
)

PACK_SUFFIX = ".zip"
PACK_JSON = "pack.json"
#: A pack.json of a hundred files has 15 kB; a pack has a handful.
_JSON_LIMIT, _FILES_LIMIT = 1_000_000, 100
_CHUNK = 1 << 20
_AGAIN = "Get the file again, from where its maker offers it."
SHIPPED = paths.ROOT / "resources" / "weights"


@dataclass(frozen=True)
class Installed:
    """A weight file that lies in place: its path, sha256, model, and whether it replaced another."""

    path: Path
    sha256: str
    model: str
    status: str
    replaced: bool


@dataclass(frozen=True)
class Wanted:
    """A file of a pack as pack.json lists it."""

    name: str
    sha256: str
    size: int


@dataclass
class _Progress:
    """Copied bytes become a fraction; a cancel becomes an InstallError."""

    total: int
    told: Callable[[float], None]
    cancelled: Callable[[], bool]
    done: int = field(default=0)

    def add(self, size: int) -> None:
        if self.cancelled():
            raise InstallError("cancelled", "The installation was cancelled.", "Nothing was changed.")
        self.done += size
        self.told(min(self.done / max(self.total, 1), 1.0))


def install_weights(
    pack: Path,
    sha256: str,
    shipped: Mapping[str, Mapping[str, Any]],
    home: Path,
    progress: Callable[[float], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Installed]:
    """Install ``pack`` below ``home``/weights and return what lies there now.

    ``sha256``: of the file ``pack`` itself; "" where every file's stands in ``shipped``, the
    manifest's entries. Raises InstallError (codes ``pack``, ``hash``, ``weights``, ``home``, ``disk``,
    ``cancelled``); nothing is changed then.
    """
    problem = pack_problem(pack, sha256)
    if problem:
        raise problem
    folder = home / "weights"
    scratch = None
    try:
        bar = _Progress(2 * pack.stat().st_size, progress, cancelled)
        found = hash_of(pack, bar)
        sha256 = sha256.strip().lower()
        if sha256 and sha256 != found:
            raise InstallError(
                "hash",
                f"{pack.name} has the sha256 {found}, SHA256 says {sha256}.",
                f"{_AGAIN} Nothing changed.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".installing-", dir=folder))
        if pack.suffix.lower() == PACK_SUFFIX:
            model, copied = _unpack(pack, scratch, bar)
        else:
            model, copied = "", [_copy(pack, scratch, bar)]
        checked = [_check(path, digest, bool(sha256), model, shipped, home) for path, digest in copied]
        bar.add(0)
        _put([(path, file) for (path, _), file in zip(copied, checked)], scratch)
        progress(1.0)
        return checked
    except OSError as error:
        raise _explain(error, pack, folder) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        # where it was made for nothing; one that holds files stays
        with contextlib.suppress(OSError):
            folder.rmdir()


def pack_problem(pack: Path, sha256: str) -> InstallError | None:
    """Return what is wrong with PACK and SHA256 at a glance, or None."""
    if pack.suffix.lower() not in (PACK_SUFFIX, SUFFIX):
        return InstallError(
            "pack", f"{pack} is neither a pack ({PACK_SUFFIX}) nor a {SUFFIX} file.", "Choose one of these."
        )
    if not pack.is_file():
        return InstallError("pack", f"{pack} does not exist.", "Choose an existing file in PACK.")
    text = sha256.strip().lower()
    if text and (len(text) != 64 or set(text) - set("0123456789abcdef")):
        return InstallError(
            "hash",
            f"SHA256 is {sha256.strip()[:80]!r}.",
            "It has 64 digits of 0-9 and a-f; leave it empty for none.",
        )
    return None


def hash_of(path: Path, bar: _Progress | None = None) -> str:
    """Return a file's sha256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if bar:
                bar.add(len(chunk))
    return digest.hexdigest()


def _unpack(pack: Path, scratch: Path, bar: _Progress) -> tuple[str, list[tuple[Path, str]]]:
    """Return the pack's model, and its files copied into ``scratch`` with their sha256."""
    try:
        with zipfile.ZipFile(pack) as archive:
            model, wanted = _contents(archive, pack.name)
            bar.total = pack.stat().st_size + sum(file.size for file in wanted)
            copied = []
            for file in wanted:
                with archive.open(file.name) as source:
                    digest = _write(source, scratch / file.name, file.size, bar)
                if digest != file.sha256:
                    raise InstallError(
                        "hash", f"{file.name} in {pack.name} is not the file that {PACK_JSON} lists.", _AGAIN
                    )
                copied.append((scratch / file.name, digest))
    # RuntimeError: encrypted; NotImplementedError: a compression this Python does not know
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InstallError("pack", f"{pack.name} is not a zip that can be read ({error}).", _AGAIN) from None
    return model, copied


def _contents(archive: zipfile.ZipFile, name: str) -> tuple[str, list[Wanted]]:
    """Return model and files as pack.json lists them, each checked against the zip's own list."""
    try:
        info = archive.getinfo(PACK_JSON)
    except KeyError:
        raise InstallError(
            "pack",
            f"{name} holds no {PACK_JSON}, so it is no pack of weights; nothing in it was opened.",
            f"Choose a Kestrel pack, or a {SUFFIX} file.",
        ) from None
    try:
        if info.file_size > _JSON_LIMIT:
            raise ValueError("too large")
        told = json.loads(archive.read(info).decode("utf-8"))
        model = told["model"]
        wanted = [Wanted(file["name"], file["sha256"].lower(), file["size"]) for file in told["files"]]
        if not isinstance(model, str) or not 0 < len(wanted) <= _FILES_LIMIT:
            raise ValueError("no model, or no files")
        if len({file.name.lower() for file in wanted}) != len(wanted):
            raise ValueError("a file twice")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InstallError("pack", f"{name} has a damaged {PACK_JSON}.", _AGAIN) from None
    listed = archive.namelist()
    for file in wanted:
        problem = file_name_problem(file.name)
        if problem:
            raise InstallError("pack", f"{name}: {problem}", _AGAIN)
        if listed.count(file.name) != 1 or archive.getinfo(file.name).file_size != file.size:
            raise InstallError("pack", f"{name} does not hold {file.name} as its {PACK_JSON} says.", _AGAIN)
        if file.size > FILE_LIMIT:
            raise InstallError("pack", f"{file.name} in {name} has over 2 GiB; weights have less.", _AGAIN)
    return model, wanted


def _copy(path: Path, scratch: Path, bar: _Progress) -> tuple[Path, str]:
    problem = file_name_problem(path.name)
    if problem:
        raise InstallError("pack", problem, "Rename the file.")
    # what is no weight file is not worth a copy
    read_header(path, path.name)
    with path.open("rb") as source:
        return scratch / path.name, _write(source, scratch / path.name, path.stat().st_size, bar)


def _write(source: IO[bytes], target: Path, size: int, bar: _Progress) -> str:
    """Copy at most ``size`` bytes, flush them to the disk, return their sha256."""
    digest = hashlib.sha256()
    with target.open("xb") as file:
        while size > 0 and (chunk := source.read(min(_CHUNK, size))):
            file.write(chunk)
            digest.update(chunk)
            size -= len(chunk)
            bar.add(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _check(
    path: Path,
    digest: str,
    vouched: bool,
    pack_model: str,
    shipped: Mapping[str, Mapping[str, Any]],
    home: Path,
) -> Installed:
    """Return where a copied file will lie; raises InstallError when it is not what it should be.

    ``vouched``: SHA256 was given and right.
    """
    name = path.name
    known = next((entry for entry in shipped.values() if entry.get("sha256") == digest), None)
    namesake = next((entry for entry in shipped.values() if entry.get("file") == name), None)
    header = read_header(path, name)
    model = model_of(header.card, shipped)
    if not model:
        raise InstallError(
            "weights",
            f"{name} holds weights of the model {header.card['name'][:80]!r}, which this version of Kestrel "
            "does not have.",
            "Update Kestrel, or choose weights made for it.",
        )
    if pack_model and pack_model != model and not pack_model.startswith(f"{model}_"):
        raise InstallError(
            "weights", f"The pack is for {pack_model[:80]}, but {name} holds weights of {model}.", _AGAIN
        )
    if namesake is not None and namesake.get("sha256") != digest:
        raise InstallError(
            "hash",
            f"{name} is not the file that this version of Kestrel knows by that name: its sha256 is "
            f"{digest[:12]}..., not {str(namesake.get('sha256'))[:12]}....",
            "Rename your own weights; weights from elsewhere: get those made for this version.",
        )
    if known is None and not vouched:
        raise InstallError(
            "hash",
            f"Kestrel does not know {name} (sha256 {digest}).",
            "Give in SHA256 the sum that its maker states for the file in PACK.",
        )
    if known is None:
        check_shapes(header, list(_relatives(model, shipped, home)), name)
    target = home / "weights" / (str(known["file"]) if known else name)
    replaced = target.is_file() and hash_of(target) != digest
    return Installed(target, digest, model, str(header.card["status"]), replaced)


def _relatives(model: str, shipped: Mapping[str, Mapping[str, Any]], home: Path) -> Iterable[Header]:
    """Return the headers of a model's released files that lie here; what cannot be read is no measure."""
    for name, entry in shipped.items():
        if name != model and not name.startswith(f"{model}_"):
            continue
        for folder in (SHIPPED, home / "weights"):
            path = folder / os.path.basename(str(entry.get("file") or "-"))
            with contextlib.suppress(OSError, InstallError):
                yield read_header(path, path.name)
                break


def _put(moves: list[tuple[Path, Installed]], scratch: Path) -> None:
    """Rename every file into its place; when one cannot be, those before it are put back."""
    undo: list[tuple[Path, Path | None]] = []
    try:
        for number, (path, file) in enumerate(moves):
            kept = None
            if file.path.exists():
                kept = scratch / f"kept-{number}"
                os.replace(file.path, kept)
            undo.append((file.path, kept))
            os.replace(path, file.path)
    except OSError:
        for place, kept in reversed(undo):
            with contextlib.suppress(OSError):
                if kept is None:
                    place.unlink()
                else:
                    os.replace(kept, place)
        raise


def _explain(error: OSError, pack: Path, folder: Path) -> InstallError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return InstallError(
            "disk",
            f"The disk is full ({folder}).",
            "Free some space, or name another folder in KESTREL_HOME.",
        )
    if error.filename and Path(os.fsdecode(error.filename)) == pack:
        return InstallError("pack", f"{pack} cannot be read ({error.strerror}).", "Check its permissions.")
    return InstallError(
        "home",
        f"Kestrel cannot write into {folder} ({error.strerror or error}).",
        "Make the folder writable, or name another one in the variable KESTREL_HOME.",
    )
