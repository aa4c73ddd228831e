"""Make the plugin zip and the weight packs: ``make package``; they lie in build/package/.

The zip holds the single folder ``kestrel`` with what QGIS and the worker read, and nothing else;
it is what the plugin site checks and what a user installs. The same tree gives the same bytes:
names are sorted, times fixed. A weight file travels in the zip when it is a model's default and
still fits; every weight file also gets a pack, which ``kestrel:installweights`` takes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / ".kestrel" / "python"))

from kestrel.models.manifest import MANIFEST, read_manifest  # noqa: E402
from kestrel.models.registry import MODELS  # noqa: E402
from kestrel.scripts import package_checks  # noqa: E402

FOLDER = "kestrel"
#: Beside the rooms: what QGIS, the plugin site and readers of the licence want.
FILES = ("__init__.py", "metadata.txt", "LICENSE", "CHANGELOG.md", ".secrets.baseline")
ROOMS = ("plugin", "algorithms", "engine", "models", "resources")
WEIGHTS = "resources/weights"
#: The first moment a zip can tell; any fixed one would do.
EPOCH = (1980, 1, 1, 0, 0, 0)
#: 9 takes three times as long and saves 0.1 %.
LEVEL = 6
#: What a zip adds for one file beside its bytes: two headers and the name twice, rounded up.
ENTRY_BYTES = 300


class PackageError(Exception):
    """The package cannot be made: one sentence that says why and what to do."""


def tracked(root: Path) -> list[str]:
    """Return the files that git tracks below ``root`` and the zip takes, sorted, without weights."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    if git.returncode:
        raise PackageError(f"{root} is no git checkout: what belongs into the zip is what git tracks.")
    names = [name for name in git.stdout.decode().split("\0") if name and (root / name).is_file()]
    taken = [name for name in names if name in FILES or name.split("/")[0] in ROOMS]
    return sorted(name for name in taken if not name.startswith(f"{WEIGHTS}/"))


def member(name: str, method: int) -> zipfile.ZipInfo:
    """Return the header of a member that depends on nothing but its name and compression."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system = 3  # Unix wherever this runs, so that the mode below counts
    info.external_attr = 0o100644 << 16
    info.compress_type = method
    return info


def write_zip(path: Path, contents: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> int:
    """Write (name, bytes) in the given order to ``path``; return the file's size in bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents:
            archive.writestr(member(name, method), data, compresslevel=LEVEL)
    return path.stat().st_size


def defaults(manifest: Mapping[str, Any]) -> list[str]:
    """Return the manifest's keys of the models' defaults, in the registry's order, each once."""
    keys = dict.fromkeys(entry.weights for entry in MODELS.values())
    return [key for key in keys if key in manifest]


def read_weights(root: Path, key: str, entry: Mapping[str, Any]) -> bytes:
    """Return a weight file's bytes; raises PackageError where they are not what the manifest says."""
    path = root / WEIGHTS / entry["file"]
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise PackageError(
            f"{WEIGHTS}/{entry['file']} is not the file that {MANIFEST} describes as {key}: release it again."
        )
    return data


def fits(data: bytes, left: int) -> int:
    """Return the bytes that ``data`` takes of the ``left`` ones in the zip, 0 where it does not fit."""
    # weights shrink by a tenth at most, so compressing only to measure is rarely needed
    size = len(data) + ENTRY_BYTES
    if size > left:
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
        size = len(packer.compress(data)) + len(packer.flush()) + ENTRY_BYTES
    return size if size <= left else 0


def model_of(key: str) -> str:
    """Return the default whose relative the weights ``key`` are; raises PackageError where there is none."""
    names = {entry.weights for entry in MODELS.values() if entry.weights}
    mine = [name for name in names if key == name or key.startswith(f"{name}_")]
    if not mine:
        raise PackageError(f"{MANIFEST} holds {key}, which belongs to no model of models/registry.py.")
    return max(mine, key=len)


def pack_name(key: str, entry: Mapping[str, Any]) -> str:
    """Return a pack's file name, such as ``kestrel-weights-sar_ships-1.zip``."""
    return f"kestrel-weights-{key}-{entry['card'].get('version', '1')}.zip"


def write_pack(folder: Path, key: str, entry: Mapping[str, Any], data: bytes) -> Path:
    """Write the pack of one weight file: pack.json first, so that it can be judged before the rest."""
    about = {
        "name": key,
        "model": model_of(key),
        "files": [{"name": entry["file"], "sha256": entry["sha256"], "size": len(data)}],
    }
    path = folder / pack_name(key, entry)
    text = json.dumps(about, indent=2, sort_keys=True) + "\n"
    # stored: half-precision weights hardly shrink, and no site limits a pack
    write_zip(path, [("pack.json", text.encode()), (entry["file"], data)], zipfile.ZIP_STORED)
    return path


def build(root: Path, folder: Path, limit: int = package_checks.LIMIT) -> tuple[Path, list[Path]]:
    """Write zip and packs of the checkout ``root`` to ``folder``; return their paths.

    ``limit``: the bytes that the zip may have. Raises PackageError.
    """
    names = tracked(root)
    manifest = read_manifest(root / WEIGHTS / MANIFEST)
    weights = {key: read_weights(root, key, entry) for key, entry in sorted(manifest.items())}
    plain = {name: (root / name).read_bytes() for name in names}

    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("kestrel-*.zip"), *folder.glob("kestrel-*.sha256")):
        old.unlink()
    packs = [write_pack(folder, key, manifest[key], data) for key, data in weights.items()]

    # what is no weights goes in whatever it takes: 0.7 MB of text
    left = limit - sum(len(zlib.compress(data, LEVEL)) + ENTRY_BYTES for data in plain.values())
    left -= len(json.dumps(manifest, indent=2))
    inside = []
    for key in defaults(manifest):
        needed = fits(weights[key], left)
        if needed:
            inside.append(key)
            left -= needed
    for key, entry in manifest.items():
        entry["pack"] = "" if key in inside else pack_name(key, entry)
    plain[f"{WEIGHTS}/{MANIFEST}"] = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    plain.update({f"{WEIGHTS}/{manifest[key]['file']}": weights[key] for key in inside})

    version = package_checks.metadata(root / "metadata.txt").get("version", "")
    path = folder / f"kestrel-{version}.zip"
    write_zip(path, ((f"{FOLDER}/{name}", plain[name]) for name in sorted(plain)))
    return path, packs


def listing(path: Path) -> str:
    """Return a zip's members with their sizes, and the whole, as text."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    lines = [f"{info.file_size:>10}  {info.compress_size:>10}  {info.filename}" for info in members]
    total = f"{len(members)} files, {sum(info.file_size for info in members):,} B unpacked"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    head = f"{path.name}: {path.stat().st_size:,} B, {total}, sha256 {digest}"
    return "\n".join([head, f"{'bytes':>10}  {'deflated':>10}  name", *lines])


def say(text: str) -> None:
    """Write one line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Build, check, tell; the exit code is 1 when a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "package", help="folder for the files")
    parser.add_argument("--unchecked", action="store_true", help="leave Bandit, secrets and Qt 6 out")
    typed = parser.parse_args()
    try:
        path, packs = build(ROOT, typed.out)
    except PackageError as error:
        say(f"package: {error}")
        return 1
    (typed.out / "listing.txt").write_text(
        "\n\n".join(listing(each) for each in (path, *packs)) + "\n", encoding="utf-8"
    )
    findings = package_checks.structure(path)
    if not typed.unchecked:
        findings += package_checks.scans(path, say)
    for finding in findings:
        say(f"package: {finding}")
    for each in (path, *packs):
        say(f"package: {each.name} {each.stat().st_size:,} B")
    if findings:
        say(f"package: {len(findings)} findings; the plugin site would refuse this zip.")
        return 1
    say(f"package: checked; the listing is in {typed.out.name}/listing.txt")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
