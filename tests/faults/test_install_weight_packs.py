"""Weights that are not what they seem: one sentence each, and KESTREL_HOME is as it was."""

import errno
import hashlib
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
from kestrel.plugin.installing import weight_packs
from kestrel.plugin.installing.errors import InstallError
from kestrel.plugin.installing.weight_packs import install_weights

CARD = {"name": "toy", "paper": "77: toys", "preset": "small", "parameters": 6, "status": "released"}
SHAPES = {"a.weight": (2, 3), "a.running_mean": (3,)}


def toy(card=None, shapes=None, fill=0):
    """A weight file's bytes: F16 parameters, F32 buffers."""
    header, end = {"__metadata__": {"kestrel": json.dumps({**CARD, **(card or {})})}}, 0
    for key, shape in (shapes or SHAPES).items():
        kind, size = ("F32", 4) if "running" in key else ("F16", 2)
        for side in shape:
            size *= side
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([fill]) * end


def digest(data):
    return hashlib.sha256(data).hexdigest()


def entry(data, file):
    return {"file": file, "sha256": digest(data), "card": CARD, "status": "released"}


def pack(path, files, model="toy", **lies):
    told = [{"name": name, "sha256": digest(data), "size": len(data), **lies} for name, data in files]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pack.json", json.dumps({"name": path.stem, "model": model, "files": told}))
        for name, data in files:
            archive.writestr(name, data)
    return path


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path):
    """A home that holds one weight file already, which every refusal leaves alone."""
    folder = tmp_path / "Zuhause mit Ü" / "weights"
    folder.mkdir(parents=True)
    (folder / "mine.safetensors").write_bytes(toy(fill=1))
    return folder.parent


SHIPPED = {
    "toy": entry(toy(), "toy.safetensors"),
    "toy_large": entry(toy({"preset": "large"}), "toy_large.safetensors"),
    "other": {**entry(b"", "other.safetensors"), "card": {**CARD, "name": "other", "paper": "78: others"}},
}


def write(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def install(path, home, sha256=""):
    return install_weights(path, sha256, SHIPPED, home)


def test_smoke_known_file_needs_no_sum(tmp_path, home):
    (done,) = install(write(tmp_path, "toy.safetensors", toy()), home)
    assert done.path == home / "weights" / "toy.safetensors"
    assert done.path.read_bytes() == toy()
    assert (done.model, done.sha256, done.replaced) == ("toy", digest(toy()), False)


def test_known_file_under_another_name_gets_its_own(tmp_path, home):
    (done,) = install(write(tmp_path, "download_1.safetensors", toy()), home)
    assert done.path.name == "toy.safetensors"


def test_own_file_needs_its_sum_and_may_replace(tmp_path, home):
    data = toy({"name": "toy_own"}, fill=2)
    path = write(tmp_path, "mine.safetensors", data)
    with pytest.raises(InstallError, match="Kestrel does not know mine"):
        install(path, home)
    (done,) = install(path, home, f" {digest(data).upper()} ")
    assert done.replaced
    assert tree(home) == {Path("weights/mine.safetensors"): data}


def test_pack_of_two(tmp_path, home):
    files = [("toy.safetensors", toy()), ("toy_large.safetensors", toy({"preset": "large"}))]
    fractions = []
    done = install_weights(pack(tmp_path / "p.zip", files), "", SHIPPED, home, fractions.append)
    assert [file.path.read_bytes() for file in done] == [data for _, data in files]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def refused(path, home, match, sha256="", code=None):
    before = tree(home)
    with pytest.raises(InstallError, match=match) as caught:
        install(path, home, sha256)
    assert tree(home) == before
    assert not any(child.is_dir() for child in (home / "weights").iterdir())
    assert caught.value.hint
    assert code in (None, caught.value.code)
    return caught.value


def test_exception_pickle_by_another_name_is_not_run(tmp_path, home):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (os.fspath(tmp_path / "sprung"),)

    refused(write(tmp_path, "a.safetensors", pickle.dumps(Trap())), home, "is a Python pickle")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"PK\x03\x04" + bytes(40), "is a zip archive, as torch.save writes it"),
        (b"", "is not a safetensors file"),
        (toy()[:-1], "holds 23 bytes of data but describes 24"),
        (toy()[:40], "is cut off"),
        (struct.pack("<Q", 3) + b"{x}", "has a damaged header"),
        (struct.pack("<Q", 2) + b"{}", "has no Kestrel card"),
        (toy({"parameters": "6"}), "damaged card: its parameters is '6'"),
        (toy({"parameters": 600}), "holds 6 numbers, its card says 600 parameters"),
        (toy({"name": "new", "paper": "99: unheard of"}), "model 'new', which this version"),
        (toy().replace(b"F16", b"F64"), "in a way that weights of Kestrel never have"),
        (struct.pack("<Q", 6_000_000) + b"{" + bytes(6_000_100), "header of 6 MB"),
    ],
)
def test_exception_file(tmp_path, home, data, match):
    refused(write(tmp_path, "a.safetensors", data), home, match, digest(data))


def test_exception_shapes_of_another_network(tmp_path, home, monkeypatch):
    monkeypatch.setattr(weight_packs, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    write(tmp_path / "shipped", "toy.safetensors", toy())
    data = toy(shapes={"a.weight": (3, 2), "a.running_mean": (3,)})
    refused(
        write(tmp_path, "a.safetensors", data),
        home,
        "a.weight is 3 x 2, the network needs 2 x 3",
        digest(data),
    )
    other = toy({"preset": "wide"}, {"a.weight": (3, 2), "a.running_mean": (3,)})
    install(write(tmp_path, "a.safetensors", other), home, digest(other))


def test_exception_sum_and_names(tmp_path, home):
    own = toy(fill=9)
    refused(write(tmp_path, "a.safetensors", own), home, "has the sha256", digest(b""), "hash")
    refused(write(tmp_path, "a.safetensors", own), home, "SHA256 is 'abc'", "abc", "hash")
    # under a shipped name it would take the shipped file's place
    refused(write(tmp_path, "toy.safetensors", own), home, "knows by that name", digest(own), "hash")
    refused(write(tmp_path, "a b.safetensors", own), home, "no name for weights", digest(own), "pack")
    refused(write(tmp_path, "a.pt", own), home, "is neither a pack")
    refused(tmp_path / "none.zip", home, "does not exist")


def test_exception_pack(tmp_path, home):
    files = [("toy.safetensors", toy())]
    refused(pack(tmp_path / "p.zip", files, "other"), home, "pack is for other, but toy.safetensors")
    refused(pack(tmp_path / "p.zip", files, sha256=digest(b"")), home, "not the file that pack.json lists")
    refused(pack(tmp_path / "p.zip", files, size=3), home, "does not hold toy.safetensors as")
    refused(pack(tmp_path / "p.zip", [("../toy.safetensors", toy())]), home, "is no name for weights")
    refused(pack(tmp_path / "p.zip", []), home, "damaged pack.json")
    with zipfile.ZipFile(tmp_path / "q.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80")
    refused(tmp_path / "q.zip", home, "holds no pack.json")
    refused(write(tmp_path, "r.zip", b"PK no zip"), home, "is not a zip that can be read")
    whole = pack(tmp_path / "p.zip", files).read_bytes()
    spoiled = bytearray(whole)
    place = whole.rindex(b"toy.safetensors", 0, whole.index(b"PK\x01\x02")) + 25
    spoiled[place] ^= 0xFF
    refused(write(tmp_path, "s.zip", bytes(spoiled)), home, "zip that can be read|not the file that")


def test_exception_second_file_wrong_installs_none(tmp_path, home):
    files = [("toy.safetensors", toy()), ("b.safetensors", b"PK" + bytes(30))]
    path = pack(tmp_path / "p.zip", files)
    refused(path, home, "b.safetensors is a zip archive", digest(path.read_bytes()))


@pytest.mark.parametrize(
    ("number", "code", "match"),
    [(errno.ENOSPC, "disk", "The disk is full"), (errno.EACCES, "home", "cannot write into")],
)
def test_fault_while_renaming_puts_back(tmp_path, home, monkeypatch, number, code, match):
    """The last rename fails: what was renamed before is put back, replaced files too."""
    mine, extra = toy(fill=4), toy({"preset": "large"})
    path = pack(tmp_path / "p.zip", [("mine.safetensors", mine), ("toy_large.safetensors", extra)])
    rename = os.replace

    def replace(source, target):
        if Path(target).name == "toy_large.safetensors":
            raise OSError(number, os.strerror(number), target)
        rename(source, target)

    monkeypatch.setattr(weight_packs.os, "replace", replace)
    refused(path, home, match, digest(path.read_bytes()), code)


def test_fault_folder_without_permission(tmp_path, home, monkeypatch):
    # played, because root may write everywhere
    def mkdtemp(prefix, dir):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(dir))

    monkeypatch.setattr(weight_packs.tempfile, "mkdtemp", mkdtemp)
    refused(write(tmp_path, "toy.safetensors", toy()), home, r"cannot write into .*weights", code="home")


def test_cancel_changes_nothing(tmp_path, home):
    before = tree(home)
    path = write(tmp_path, "toy.safetensors", toy())
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 2  # hashed, copied, and then

    with pytest.raises(InstallError, match="cancelled"):
        install_weights(path, "", SHIPPED, home, cancelled=cancelled)
    assert tree(home) == before
