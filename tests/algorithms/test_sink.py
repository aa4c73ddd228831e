"""The guarded sink: an output appears whole, or what was there before stays (CONTRACTS.md, section 5)."""

import os
import signal
import subprocess
import sys

import processing
import pytest
from kestrel.algorithms import boxes, scenes
from kestrel.plugin import sink
from kestrel.plugin.destination import parse_destination
from kestrel.plugin.errors import WorkerCancelled, WorkerError
from kestrel.plugin.lockfile import Busy, LockFile
from kestrel.plugin.sink import GuardedOutput, SinkError, backup_path
from kestrel.tests.support.algorithm_tools import ROOT, folder_state, layer_rows, make_polygons, square
from qgis.core import (
    QgsFields,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsProject,
    QgsVectorLayer,
    QgsWkbTypes,
)

CFAR = "kestrel:detectshipscfar"
ENDINGS = ("gpkg", "geojson", "shp", "fgb")


def run(scene, output, **more):
    return processing.run(CFAR, {"INPUT": scene, "OUTPUT": str(output), **more})


def shared_geopackage(path):
    """A GeoPackage with two layers of other people, and the way to write a third table into it."""
    make_polygons(path, [square(0, 0, 50)], layer="harbours")
    from osgeo import gdal, ogr

    data = gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_UPDATE)
    data.CreateLayer("routes", None, ogr.wkbNone)
    del data
    return f"ogr:dbname='{path}' table=\"ships\" (geom)"


@pytest.fixture(params=["file-gpkg", "file-geojson", "file-shp", "file-fgb", "table"])
def old(request, stub, scene, out):
    """An output that exists, with sidecar and style: (what OUTPUT is, the folder's state)."""
    kind, _, ending = request.param.partition("-")
    output = str(out / f"ships.{ending}") if kind == "file" else shared_geopackage(out / "shared.gpkg")
    stub.count = 5
    run(scene, output)
    stub.count = 2
    return output, folder_state(out)


def test_the_trap_is_real(qgis_app, tmp_path):
    """What the guard is for: opening a sink on a GeoPackage path erases all its layers."""
    shared_geopackage(tmp_path / "shared.gpkg")
    opened, _ = QgsProcessingUtils.createFeatureSink(
        str(tmp_path / "shared.gpkg"), QgsProcessingContext(), QgsFields(), QgsWkbTypes.Type.Polygon, _crs()
    )
    del opened
    from osgeo import gdal

    data = gdal.OpenEx(str(tmp_path / "shared.gpkg"), gdal.OF_VECTOR)
    assert [data.GetLayer(i).GetName() for i in range(data.GetLayerCount())] == ["shared"]


def _crs():
    from qgis.core import QgsCoordinateReferenceSystem

    return QgsCoordinateReferenceSystem("EPSG:32630")


def test_plain_path_to_a_shared_geopackage_is_refused_with_the_other_form(stub, scene, out):
    shared_geopackage(out / "shared.gpkg")
    before = folder_state(out)
    with pytest.raises(QgsProcessingException, match=r"harbours, routes.*ogr:dbname='.*' table=\"shared\""):
        run(scene, out / "shared.gpkg")
    assert folder_state(out) == before
    assert stub.jobs == []


def test_table_form_replaces_that_table_only(stub, scene, out):
    table = shared_geopackage(out / "shared.gpkg")
    for stub.count in (4, 2):
        run(scene, table)
        assert len(layer_rows(out / "shared.gpkg", "ships")) == stub.count
        assert len(layer_rows(out / "shared.gpkg", "harbours")) == 1
    assert sorted(os.listdir(out)) == ["shared.gpkg", "shared.gpkg.ships.kestrel.json"]


def test_existing_output_is_replaced_and_nothing_is_left_over(stub, scene, out, old):
    output, before = old
    run(scene, output)
    assert set(folder_state(out)) == set(before)
    path = parse_destination(output)
    assert len(layer_rows(path.path, path.table or None)) == 2


def failing_worker(monkeypatch, stub):
    stub.error = WorkerError("It broke.", "Mend it.", "/log")


def failing_cancel(monkeypatch, stub):
    stub.error = WorkerCancelled()


def failing_sink(monkeypatch, stub):
    monkeypatch.setattr(boxes.BoxAlgorithm, "parameterAsSink", lambda *_: (None, ""))


def failing_copy(monkeypatch, stub):
    value = sink._value

    def broken(feature, index):
        if feature.GetField("id") == 2:
            raise SinkError("It broke.")
        return value(feature, index)

    monkeypatch.setattr(sink, "_value", broken)


def failing_verify(monkeypatch, stub):
    def broken(*_):
        raise SinkError("It broke.")

    monkeypatch.setattr(scenes, "verify", broken)


def failing_style(monkeypatch, stub):
    def broken(*_):
        raise RuntimeError("It broke.")

    monkeypatch.setattr(boxes, "store_style", broken)


def failing_sidecar(monkeypatch, stub):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(boxes.sidecar, "write_sidecar", broken)


def failing_commit(monkeypatch, stub):
    def broken(_path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sink, "_sync", broken)


def failing_oddly(monkeypatch, stub):
    monkeypatch.setattr(scenes, "sink_fields", lambda _table: 1 / 0)


def failing_fields(monkeypatch, stub):
    stub.names = stub.names[:-1]


FAILURES = [
    failing_worker,
    failing_cancel,
    failing_fields,
    failing_oddly,
    failing_sink,
    failing_copy,
    failing_verify,
    failing_style,
    failing_sidecar,
    failing_commit,
]


@pytest.mark.parametrize("fail", FAILURES, ids=lambda f: f.__name__)
def test_failure_leaves_the_old_output_byte_for_byte(stub, scene, out, old, fail, monkeypatch):
    output, before = old
    fail(monkeypatch, stub)
    with pytest.raises(QgsProcessingException):
        run(scene, output)
    assert len(stub.jobs) == 2
    assert folder_state(out) == before


@pytest.mark.parametrize("fail", FAILURES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("ending", ENDINGS)
def test_failure_leaves_no_new_output(stub, scene, out, fail, ending, monkeypatch):
    fail(monkeypatch, stub)
    with pytest.raises(QgsProcessingException):
        run(scene, out / f"ships.{ending}")
    # the style beside the file is no data, and harmless without it
    assert set(os.listdir(out)) <= {"ships.qml"}


def test_cancel_while_copying_restores(stub, scene, out, old, monkeypatch):
    output, before = old
    feedback = QgsProcessingFeedback()
    value = sink._value

    def cancelling(feature, index):
        feedback.cancel()
        return value(feature, index)

    monkeypatch.setattr(sink, "_value", cancelling)
    with pytest.raises(QgsProcessingException, match="Cancelled"):
        processing.run(CFAR, {"INPUT": scene, "OUTPUT": output}, feedback=feedback)
    assert folder_state(out) == before


def test_disk_full_while_copying_restores(stub, scene, out, monkeypatch):
    """A real failure of the writer, by a limit on the size of files."""
    resource = pytest.importorskip("resource")
    stub.count = 5
    run(scene, out / "ships.gpkg")
    before = folder_state(out)
    stub.count = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    set_aside = GuardedOutput.set_aside

    def limited(self):
        set_aside(self)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))

    monkeypatch.setattr(GuardedOutput, "set_aside", limited)
    try:
        with pytest.raises(QgsProcessingException):
            run(scene, out / "ships.gpkg")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert folder_state(out) == before


def test_layer_open_in_the_project_is_refused(stub, scene, out, old):
    output, before = old
    path = parse_destination(output)
    layer = QgsVectorLayer(path.path, "open", "ogr")
    assert layer.isValid()
    QgsProject.instance().addMapLayer(layer)
    with pytest.raises(QgsProcessingException, match="loaded in the current project; close the layer first"):
        run(scene, output)
    assert len(stub.jobs) == 1
    QgsProject.instance().removeAllMapLayers()
    assert {name for name in folder_state(out) if not name.endswith(("-wal", "-shm"))} == set(before)


@pytest.mark.parametrize("companion", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("table", [False, True])
def test_geopackage_open_elsewhere_is_refused(stub, scene, out, companion, table):
    form = shared_geopackage(out / "ships.gpkg")
    (out / f"ships.gpkg{companion}").write_bytes(b"")
    before = folder_state(out)
    with pytest.raises(QgsProcessingException, match=f"ships.gpkg{companion}.*close the layer first"):
        run(scene, form if table else out / "ships.gpkg")
    assert folder_state(out) == before
    assert stub.jobs == []


def test_second_run_to_the_same_output_is_refused(stub, scene, out):
    run(scene, out / "ships.gpkg")
    before = folder_state(out)
    lock = LockFile(parse_destination(str(out / "ships.gpkg")).lock)
    lock.acquire()
    try:
        with pytest.raises(QgsProcessingException, match="another run is writing"):
            run(scene, out / "ships.gpkg")
    finally:
        lock.release()
    assert len(stub.jobs) == 1
    assert folder_state(out) == before


def test_second_run_that_passed_its_checks_first_is_refused_too(stub, scene, out):
    """Two runs start at once: both pass the checks, the second one meets the lock."""
    errors = []

    def start_another(job):
        stub.seen = None
        try:
            run(scene, out / "ships.gpkg")
        except QgsProcessingException as error:
            errors.append(str(error))

    stub.seen = start_another
    run(scene, out / "ships.gpkg")
    assert len(errors) == 1
    assert "another run is writing" in errors[0]
    assert len(layer_rows(out / "ships.gpkg")) == 3


def crash(scene, output, point):
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "crash_run.py"), scene, str(output), point],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("point", ["aside", "copy", "closed", "style"])
def test_kill_9_then_a_failing_run_restores_the_old_output(stub, scene, out, old, point):
    output, before = old
    crash(scene, output, point)
    assert folder_state(out) != before
    stub.error = WorkerError("It broke.")
    with pytest.raises(QgsProcessingException, match="It broke"):
        run(scene, output)
    state = folder_state(out)
    assert {name: state.get(name) for name in before} == before
    assert set(state) - set(before) <= {"ships.qml"}


@pytest.mark.parametrize("point", ["copy", "closed"])
def test_kill_9_then_another_run_succeeds(stub, scene, out, old, point):
    output, before = old
    crash(scene, output, point)
    run(scene, output)
    path = parse_destination(output)
    assert len(layer_rows(path.path, path.table or None)) == 2
    assert set(folder_state(out)) == set(before)


def test_kill_9_without_an_old_output_leaves_the_way_free(stub, scene, out):
    crash(scene, out / "ships.gpkg", "copy")
    assert (out / "ships.gpkg").exists()
    stub.error = WorkerError("It broke.")
    with pytest.raises(QgsProcessingException, match="It broke"):
        run(scene, out / "ships.gpkg")
    assert os.listdir(out) == []


@pytest.mark.parametrize("stage", ["moving", "writing", "restoring", "done", None])
def test_recover_after_every_stage(tmp_path, stage):
    """``done`` keeps the new file; every other stage gives the old one back."""
    output = tmp_path / "ships.shp"
    for ending in ("shp", "dbf", "shx"):
        (tmp_path / f".ships.{ending}.bak").write_text("old")
        (tmp_path / f"ships.{ending}").write_text("new")
    (tmp_path / "ships.cpg").write_text("new")
    lock = LockFile(parse_destination(str(output)).lock)
    lock.acquire()
    if stage:
        lock.note(stage=stage)
    os.close(lock._handle)  # as a crash leaves it
    with GuardedOutput(parse_destination(str(output)), "OUTPUT"):
        pass
    expected = "new" if stage == "done" else "old"
    assert [(tmp_path / f"ships.{ending}").read_text() for ending in ("shp", "dbf", "shx")] == [expected] * 3
    # a new part without an old one goes only when the note says that it is a part
    assert (tmp_path / "ships.cpg").exists() == (stage != "writing")
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".bak", ".lock"))]


def test_crash_between_moving_two_files_loses_neither(tmp_path, monkeypatch):
    for ending in ("shp", "dbf"):
        (tmp_path / f"ships.{ending}").write_text("old")
    before = folder_state(tmp_path)
    moves = []

    def moving_once(source, target):
        if moves:
            raise KeyboardInterrupt
        moves.append(source)
        os.rename(source, target)

    guard = GuardedOutput(parse_destination(str(tmp_path / "ships.shp")), "OUTPUT")
    guard.__enter__()
    monkeypatch.setattr(sink.os, "replace", moving_once)
    with pytest.raises(KeyboardInterrupt):
        guard.set_aside()
    monkeypatch.undo()
    os.close(guard._lock._handle)
    assert moves
    with GuardedOutput(parse_destination(str(tmp_path / "ships.shp")), "OUTPUT"):
        pass
    assert folder_state(tmp_path) == before


def test_restore_that_fails_is_finished_by_the_next_run(stub, scene, out, old, monkeypatch):
    output, before = old
    failing_verify(monkeypatch, stub)
    replace = os.replace

    def held(source, target):
        if str(source).endswith(".bak"):
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(sink.os, "replace", held)
    with pytest.raises(
        QgsProcessingException, match=r"could not be put back \(Permission denied\); it lies in"
    ):
        run(scene, output)
    # still in the way: refused again, and nothing lost
    with pytest.raises(QgsProcessingException, match="could not be put back"):
        run(scene, output)
    monkeypatch.setattr(sink.os, "replace", replace)
    stub.error = WorkerError("It broke.")
    with pytest.raises(QgsProcessingException, match="It broke"):
        run(scene, output)
    state = folder_state(out)
    assert {name: state.get(name) for name in before} == before
    assert set(state) == set(before)


def test_half_a_backup_copy_is_no_backup(tmp_path):
    destination = parse_destination(f"ogr:dbname='{tmp_path}/shared.gpkg' table=\"ships\" (geom)")
    (tmp_path / "shared.gpkg").write_text("old")
    (tmp_path / ".shared.gpkg.bak.part").write_text("ol")
    with GuardedOutput(destination, "OUTPUT"):
        pass
    assert (tmp_path / "shared.gpkg").read_text() == "old"
    assert os.listdir(tmp_path) == ["shared.gpkg"]


def test_lock_is_exclusive_and_its_note_survives_its_holder(tmp_path):
    first = LockFile(str(tmp_path / "lock"))
    assert first.acquire() == {}
    first.note(stage="writing")
    with pytest.raises(Busy):
        LockFile(str(tmp_path / "lock")).acquire()
    os.close(first._handle)
    second = LockFile(str(tmp_path / "lock"))
    assert second.acquire() == {"stage": "writing"}
    second.note(stage="x")
    second.release()
    assert os.listdir(tmp_path) == []
    second.release()


def test_lock_with_a_damaged_note_counts_as_none(tmp_path):
    (tmp_path / "lock").write_bytes(b"\xff{")
    lock = LockFile(str(tmp_path / "lock"))
    assert lock.acquire() == {}
    lock.release()


def test_backup_path_is_hidden_and_beside():
    assert backup_path("/a/b.gpkg") == "/a/.b.gpkg.bak"


@pytest.mark.parametrize(
    ("text", "kind", "path", "table"),
    [
        ("TEMPORARY_OUTPUT", "memory", "", ""),
        ("memory:ships", "memory", "", ""),
        ("/data/a.gpkg", "file", "/data/a.gpkg", ""),
        ("/data/a", "file", "/data/a.gpkg", ""),
        ("/data/a.b/c", "file", "/data/a.b/c.gpkg", ""),
        ("/data/.gpkg", "file", "/data/.gpkg", ""),
        ("ogr:dbname='/data/a b.gpkg' table=\"x\" (geom)", "table", "/data/a b.gpkg", "x"),
        ("ogr:dbname='/data/a.gpkg'", "table", "/data/a.gpkg", "a"),
        ('postgis:dbname=\'gis\' table="public"."ships" (geom)', "database", "", ""),
    ],
)
def test_destination_is_read_as_qgis_reads_it(text, kind, path, table):
    found = parse_destination(text)
    assert (found.kind, found.path, found.table) == (kind, path, table)
