"""Part files: all outputs take their places or none does, and nothing stays behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kestrel.engine import parts as parts_module
from kestrel.engine.errors import EngineError
from kestrel.engine.output_checks import check_space
from kestrel.engine.parts import Parts
from kestrel.engine.run_lock import Busy, RunLock, alive
from kestrel.tests.support import part_run

posix = pytest.mark.skipif(os.name == "nt", reason="signals and hard links as POSIX has them")


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def dead_pid():
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    return int(child.stdout)


def start(output, end):
    """Start a run of its own; return it when half its raster is written."""
    child = subprocess.Popen([sys.executable, part_run.__file__, str(output), end], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"halfway\n"
    return child


def test_smoke_three_outputs_are_committed_together(tmp_path):
    outputs = {
        name: tmp_path / file for name, file in [("raster", "a.tif"), ("haze", "b.tif"), ("report", "a.html")]
    }
    with Parts(outputs) as parts:
        for name in outputs:
            assert parts.path(name).parent == tmp_path
            assert parts.path(name).suffix == outputs[name].suffix
            parts.path(name).write_text(name)
        assert not any(path.exists() for path in outputs.values())
        parts.commit()
    assert names(tmp_path) == ["a.html", "a.tif", "b.tif"]
    assert all(path.read_text() == name for name, path in outputs.items())


def test_feature_the_names_of_parts(tmp_path):
    with Parts({"raster": tmp_path / "a.tif", "report": tmp_path / "a.html"}) as parts:
        assert parts.path("raster").name == f".a.tif.{os.getpid()}.part.tif"
        assert parts.path("report").name == f".a.html.{os.getpid()}.part.html"
        assert parts.final("raster") == tmp_path / "a.tif"


@pytest.mark.parametrize(
    "name", ["höhe über NN.tif", "a b.tif", "x" * 251 + ".tif", "é" * 125 + ".tif", "no_suffix"]
)
def test_feature_names_of_all_kinds(tmp_path, name):
    (tmp_path / name).write_text("old")
    with Parts({"raster": tmp_path / name}) as parts:
        parts.path("raster").write_text("new")
        parts.commit()
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "new"
    with Parts({"raster": tmp_path / name}) as parts:
        parts.path("raster").with_name(parts.path("raster").name + ".msk.ovr.tmp").write_text("x")
    assert names(tmp_path) == [name]


def test_feature_an_error_removes_parts_and_their_side_files(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    (tmp_path / "a.tif.ovr").write_text("old overviews")

    def fail():
        with Parts({"raster": tmp_path / "a.tif"}) as parts:
            parts.path("raster").write_text("new")
            for suffix in (".aux.xml", ".ovr.tmp"):
                parts.path("raster").with_name(parts.path("raster").name + suffix).write_text("x")
            parts.path("raster").with_name(parts.path("raster").stem + ".units").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == ["a.tif", "a.tif.ovr"]
    assert (tmp_path / "a.tif").read_text() == "old"


def test_feature_side_files_of_the_old_output_go_and_others_stay(tmp_path):
    gone = ["a.tif.ovr", "a.tif.msk", "a.tif.msk.ovr", "a.tif.aux.xml", "a.qml", "a.tfw", "a.TFW", "a.wld"]
    stay = ["ab.tif.ovr", "a.tiff.ovr", "a.gpkg", "b.qml", "a.tif.kestrel.json", "a.tif.txt", "A.tif.ovr"]
    for name in [*gone, *stay, "a.tif"]:
        (tmp_path / name).write_text("old")
    with Parts({"raster": tmp_path / "a.tif"}) as parts:
        parts.path("raster").write_text("new")
        parts.commit()
    assert names(tmp_path) == sorted([*stay, "a.tif"])


def test_feature_without_an_old_raster_a_style_of_that_name_is_not_ours(tmp_path):
    for name in ("a.qml", "a.tif.ovr", "a.tfw"):
        (tmp_path / name).write_text("x")
    with Parts({"raster": tmp_path / "a.tif", "report": tmp_path / "a.html"}) as parts:
        parts.path("raster").write_text("new")
        parts.path("report").write_text("new")
        parts.commit()
    assert names(tmp_path) == ["a.html", "a.qml", "a.tif"]


def test_feature_side_files_written_by_this_run_stay(tmp_path):
    for name in ("a.tif", "a.tif.aux.xml", "a.qml"):
        (tmp_path / name).write_text("old")
    with Parts({"raster": tmp_path / "a.tif", "style": tmp_path / "a.qml"}) as parts:
        parts.path("raster").write_text("new")
        parts.path("raster").with_name(parts.path("raster").name + ".aux.xml").write_text("new")
        parts.path("style").write_text("new")
        parts.commit()
    assert names(tmp_path) == ["a.qml", "a.tif", "a.tif.aux.xml"]
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {"new"}


@posix
def test_feature_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.tif").write_text("old")
    (tmp_path / "link.tif").symlink_to(tmp_path / "real" / "a.tif")
    with Parts({"raster": tmp_path / "link.tif"}) as parts:
        parts.path("raster").write_text("new")
        parts.commit()
    assert (tmp_path / "link.tif").is_symlink()
    assert (tmp_path / "real" / "a.tif").read_text() == "new"


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_fault_a_rename_that_fails_puts_everything_back(tmp_path, monkeypatch, failing, links):
    outputs = {name: tmp_path / f"{name}.tif" for name in ("one", "two", "three")}
    for name in ("one", "three"):  # two is new
        outputs[name].write_text("old")
    replace = os.replace

    def fail(source, target):
        if Path(source).name.endswith(".part.tif") and Path(target) == list(outputs.values())[failing]:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    def no_links(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(parts_module.os, "replace", fail)
    if not links:
        monkeypatch.setattr(parts_module.os, "link", no_links)
    parts = Parts(outputs)
    for name in outputs:
        parts.path(name).write_text("new")
    with pytest.raises(EngineError, match="cannot be replaced: permission denied"):
        parts.commit()
    assert names(tmp_path) == ["one.tif", "three.tif"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


def test_fault_a_part_that_was_never_written(tmp_path):
    (tmp_path / "a.tif").write_text("old")
    with (
        pytest.raises(EngineError, match=r"a\.tif cannot be written"),
        Parts({"raster": tmp_path / "a.tif"}) as parts,
    ):
        parts.commit()
    assert names(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("old", ["linked", "renamed", "finished"])
def test_fault_a_crash_between_the_renames_is_repaired_by_the_next_run(tmp_path, old):
    output, backup = tmp_path / "a.tif", tmp_path / ".a.tif.kestrel.bak"
    backup.write_text("old")
    if old == "linked":
        os.link(backup, output)
    elif old == "finished":
        output.write_text("new")
    Parts({"raster": output}).abandon()
    assert names(tmp_path) == ["a.tif"]
    assert output.read_text() == ("new" if old == "finished" else "old")


@posix
def test_fault_killed_halfway_leaves_the_old_output_and_a_part_that_the_next_run_removes(tmp_path):
    output = tmp_path / "a.tif"
    old = os.urandom(5000)
    output.write_bytes(old)
    child = start(output, "kill")
    assert child.wait() == -9
    assert output.read_bytes() == old
    assert f".a.tif.{child.pid}.part.tif" in names(tmp_path)
    with Parts({"raster": output}) as parts:
        assert names(tmp_path) == [".a.tif.run.lock", "a.tif"]
        parts.path("raster").write_text("new")
        parts.commit()
    assert names(tmp_path) == ["a.tif"]


@posix
def test_fault_a_second_run_is_refused_and_leaves_the_first_alone(tmp_path):
    output = tmp_path / "a.tif"
    child = start(output, "wait")
    try:
        part = tmp_path / f".a.tif.{child.pid}.part.tif"
        before = part.read_bytes()
        with pytest.raises(EngineError, match="Another run is writing") as caught:
            Parts({"report": tmp_path / "a.html", "raster": output})
        assert caught.value.hint == "Wait for it or choose another file."
        assert part.read_bytes() == before
        assert not (tmp_path / ".a.html.run.lock").exists()
        Parts({"raster": tmp_path / "b.tif"}).abandon()  # another output is free
    finally:
        child.kill()
        child.wait()
    Parts({"raster": output}).abandon()
    assert names(tmp_path) == []


def test_fault_two_runs_in_one_process(tmp_path):
    with Parts({"raster": tmp_path / "a.tif"}), pytest.raises(EngineError, match="Another run"):
        Parts({"raster": tmp_path / "a.tif"})
    with Parts({"raster": tmp_path / "a.tif"}) as parts:  # given back
        parts.path("raster").write_text("x")
        parts.commit()


def test_feature_only_parts_of_dead_runs_of_this_output_are_removed(tmp_path):
    dead = dead_pid()
    assert alive(os.getpid())
    assert not alive(dead)
    gone = [f".a.tif.{dead}.part.tif", f".a.tif.{dead}.part.tif.aux.xml", f".a.tif.{dead}.part.plain.tif"]
    stay = [
        f".a.tif.{os.getppid()}.part.tif",
        f".b.tif.{dead}.part.tif",
        ".a.tif.x.part.tif",
        f"a.tif.{dead}.part.tif",
    ]
    for name in [*gone, *stay]:
        (tmp_path / name).write_text("x")
    (tmp_path / f".a.tif.{dead}.part.xyz").mkdir()
    (tmp_path / f".a.tif.{dead}.part.xyz" / "unit.npy").write_text("x")
    Parts({"raster": tmp_path / "a.tif"}).abandon()
    assert names(tmp_path) == sorted(stay)


def test_feature_without_locks_only_old_parts_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("kestrel.engine.run_lock._lock", lambda _: False)
    dead = dead_pid()
    for name in (f".a.tif.{dead}.part.tif", f".a.tif.{dead}.part.plain.tif"):
        (tmp_path / name).write_text("x")
    old = time.time() - 2 * 24 * 3600
    os.utime(tmp_path / f".a.tif.{dead}.part.plain.tif", (old, old))
    Parts({"raster": tmp_path / "a.tif"}).abandon()
    assert names(tmp_path) == [f".a.tif.{dead}.part.tif"]


def test_feature_a_lock_goes_with_its_file(tmp_path):
    first, second = RunLock(tmp_path / "l"), RunLock(tmp_path / "l")
    first.acquire()
    with pytest.raises(Busy):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()
    assert names(tmp_path) == []


def test_exception_output_is_a_folder(tmp_path):
    with pytest.raises(EngineError, match="is a folder, not a file"):
        Parts({"raster": tmp_path})


def test_exception_folder_is_missing(tmp_path):
    with pytest.raises(EngineError, match=r"The folder .*nowhere does not exist"):
        Parts({"raster": tmp_path / "nowhere" / "a.tif"})


@pytest.mark.parametrize("way", ["same", "dotted", "hard link"])
def test_exception_output_is_an_input(tmp_path, way):
    source = tmp_path / "a.tif"
    source.write_text("precious")
    output = {
        "same": source,
        "dotted": tmp_path / "." / "x" / ".." / "a.tif",
        "hard link": tmp_path / "b.tif",
    }[way]
    if way == "hard link":
        os.link(source, output)
    with pytest.raises(EngineError, match="is also an input"):
        Parts({"raster": output}, [source])
    assert source.read_text() == "precious"


def test_exception_two_outputs_in_one_file(tmp_path):
    with pytest.raises(EngineError, match="Two outputs are to be written to"):
        Parts({"raster": tmp_path / "a.tif", "haze": tmp_path / "x" / ".." / "a.tif"})
    assert names(tmp_path) == []


@posix
def test_exception_unwritable_folder(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    if os.geteuid() == 0:  # to root every folder is writable
        monkeypatch.setattr("kestrel.engine.run_lock.os.open", refuse)
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(EngineError, match="cannot be written: permission denied") as caught:
        Parts({"raster": tmp_path / "a.tif"})
    assert caught.value.code == "output"


def test_exception_write_protected_output(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_text("old")
    monkeypatch.setattr("kestrel.engine.output_checks.os.access", lambda *_: False)
    with pytest.raises(EngineError, match="is write-protected"):
        Parts({"raster": tmp_path / "a.tif"})


def test_exception_not_enough_space(tmp_path):
    check_space(tmp_path, 1, "a.tif")
    with pytest.raises(
        EngineError, match=r"a\.tif may need 1000000\.0 GB, but .* has \d+\.\d+ [GM]B free"
    ) as caught:
        check_space(tmp_path, 10**15, "a.tif")
    assert "EXTENT" in caught.value.hint
    with pytest.raises(EngineError, match="cannot be used: No such file"):
        check_space(tmp_path / "nowhere", 1, "a.tif")
