"""What reaches the worker from the algorithms of two dates, and what becomes of its answer (stub worker)."""

import json
import os

import processing
import pytest
from kestrel.plugin.errors import WorkerError
from kestrel.tests.support.algorithm_tools import (
    fake_weights,
    folder_state,
    layer_rows,
    make_polygons,
    square,
)
from kestrel.tests.support.change_tools import NAMES
from osgeo import ogr
from qgis.core import (
    Qgis,
    QgsDateTimeRange,
    QgsFeature,
    QgsGeometry,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDate, QDateTime, QTime

VECTOR = "kestrel:detectchangevector"
NETWORK = "kestrel:detectbuildingchange"
DEFAULTS = {
    "match_radiometry": False,
    "align": "none",
    "threshold": 0.0,
    "min_area": -1.0,
    "simplify": 0.0,
    "regularise": False,
    "tile": 256,
    "overlap": 64,
    "memory_mb": 0,
}


def run(name, dates, **more):
    feedback = QgsProcessingFeedback()
    results = processing.run(name, {**dates, "OUTPUT": "TEMPORARY_OUTPUT", **more}, feedback=feedback)
    return results, feedback.textLog()


def test_feature_job_holds_the_defaults(change_stub, dates):
    run(VECTOR, dates)
    [job] = change_stub.jobs
    assert (job.kind, job.model, job.device) == ("predict", "change_vector", "auto")
    assert job.inputs == {
        "before": {"path": dates["BEFORE"], "bands": []},
        "after": {"path": dates["AFTER"], "bands": []},
    }
    assert job.params == DEFAULTS
    # both rasters are always made: the polygons come from them
    assert sorted(job.outputs) == ["mask", "polygons", "probability"]
    assert {os.path.dirname(path) for path in job.outputs.values()} == {job.scratch}


def test_feature_job_holds_what_was_typed(change_stub, dates, out, tmp_path):
    weights = fake_weights(tmp_path / "own.safetensors")
    known = make_polygons(tmp_path / "known.gpkg", [square(0, 0, 100)])
    area = QgsVectorLayer("Polygon?crs=EPSG:32630&field=code:int&field=town:string", "areas", "memory")
    feature = QgsFeature(area.fields())
    feature.setAttributes([7, "Aldea"])
    feature.setGeometry(QgsGeometry.fromWkt(square(0, 0, 200)))
    area.dataProvider().addFeature(feature)
    area.setDisplayExpression('"town"')
    run(
        NETWORK,
        dates,
        BANDS_BEFORE=[3, 2, 1],
        BANDS_AFTER="2,1,3",
        WEIGHTS=weights,
        STRETCH_MIN="1,2,3",
        STRETCH_MAX="200",
        MATCH_RADIOMETRY=True,
        ALIGN="shift",
        RESAMPLE=True,
        THRESHOLD=0.4,
        MIN_AREA=25,
        SIMPLIFY=0.5,
        REGULARISE=True,
        AOI=area,
        TILE=128,
        OVERLAP=32,
        BATCH=2,
        DEVICE="cpu",
        REFERENCE=known,
        OUTPUT_MASK=str(out / "mask"),
        OUTPUT_PROBABILITY=str(out / "p.tiff"),
        REPORT=str(out / "report.html"),
    )
    [job] = change_stub.jobs
    assert (job.model, job.device) == ("building_change", "cpu")
    assert job.inputs["before"]["bands"] == [3, 2, 1]
    assert job.inputs["after"]["bands"] == [2, 1, 3]
    assert job.inputs["reference"] == {"path": os.path.join(job.scratch, "reference", "known.fgb")}
    assert job.inputs["zones"] == {"path": os.path.join(job.scratch, "zones", "zones.fgb")}
    assert change_stub.zones == [{"name": "Aldea"}]
    assert job.params == {
        **DEFAULTS,
        "match_radiometry": True,
        "align": "shift",
        "threshold": 0.4,
        "min_area": 25.0,
        "simplify": 0.5,
        "regularise": True,
        "tile": 128,
        "overlap": 32,
        "stretch_min": [1.0, 2.0, 3.0],
        "stretch_max": [200.0],
        "weights": weights,
        "resample": True,
        "batch": 2,
    }
    assert job.outputs["mask"] == str(out / "mask.tif")
    assert job.outputs["probability"] == str(out / "p.tiff")
    assert job.outputs["report"] == str(out / "report.html")
    assert job.aoi_wkt.startswith(("Polygon", "MultiPolygon"))


def test_feature_network_takes_the_tile_of_its_card_unless_told(change_stub, dates, tmp_path):
    run(NETWORK, dates, WEIGHTS=fake_weights(tmp_path / "own.safetensors"))
    params = change_stub.jobs[0].params
    assert (params["tile"], params["overlap"]) == (0, 0)


def test_feature_dates_come_from_the_layers_temporal_settings(change_stub, dates):
    layer = QgsRasterLayer(dates["BEFORE"], "before")
    day = QDateTime(QDate(2019, 5, 6), QTime(7, 8))
    times = layer.temporalProperties()
    times.setIsActive(True)
    times.setMode(Qgis.RasterTemporalMode.FixedTemporalRange)
    times.setFixedTemporalRange(QgsDateTimeRange(day, day.addDays(1)))
    QgsProject.instance().addMapLayer(layer)
    run(VECTOR, {**dates, "BEFORE": layer})
    params = change_stub.jobs[0].params
    assert params["date_before"].startswith("2019-05-06T07:08")
    assert "date_after" not in params


def test_feature_outputs_carry_fields_style_and_history(change_stub, dates, out):
    target = out / "change.gpkg"
    results, log = run(
        VECTOR, dates, OUTPUT=str(target), OUTPUT_MASK=str(out / "mask.tif"), REPORT=str(out / "report.html")
    )
    assert results == {
        "OUTPUT": str(target),
        "OUTPUT_MASK": str(out / "mask.tif"),
        "REPORT": str(out / "report.html"),
    }
    rows = layer_rows(target)
    assert [list(row) for row, _ in rows] == [NAMES, NAMES]
    assert rows[0][0]["date1"] == "2020-01-01"
    assert rows[0][0]["date2"] is None
    assert "2 polygon(s) of change found." in log
    styles = ogr.Open(str(target)).ExecuteSQL("SELECT f_table_name, styleQML FROM layer_styles")
    assert "227,26,28,255" in styles.GetNextFeature()["styleQML"]
    assert 'type="paletted"' in (out / "mask.qml").read_text()
    for name in ("change.gpkg", "mask.tif"):
        history = json.loads((out / f"{name}.kestrel.json").read_text())
        assert history["algorithm"] == VECTOR
        assert history["change"] == {"threshold": 0.5, "share": 0.1}
        assert "a stub warned" in history["warnings"]
        assert {entry["parameter"] for entry in history["inputs"]} == {"BEFORE", "AFTER"}


def test_fault_a_failing_worker_leaves_the_old_outputs(change_stub, dates, out):
    places = {"OUTPUT": str(out / "change.gpkg"), "OUTPUT_MASK": str(out / "mask.tif")}
    run(VECTOR, dates, **places)
    before = folder_state(out)
    change_stub.error = WorkerError("The two rasters do not overlap.", "", "", "input")
    with pytest.raises(QgsProcessingException, match="do not overlap"):
        run(VECTOR, dates, **places)
    assert folder_state(out) == before


@pytest.fixture
def full_disk(monkeypatch):
    """Polygons cannot be written; returns a function that lets the disk fill up."""
    from kestrel.algorithms import scenes
    from kestrel.plugin.sink import SinkError

    def full(*_):
        raise SinkError("The disk is full.")

    return lambda: monkeypatch.setattr(scenes, "verify", full)


def no_room(source, *_):
    raise OSError(28, "No space left on device", source)


EVERY = {
    "OUTPUT": "change.gpkg",
    "OUTPUT_MASK": "mask.tif",
    "OUTPUT_PROBABILITY": "p.tif",
    "REPORT": "report.html",
}


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "copies"])
def test_fault_all_outputs_appear_or_none(change_stub, dates, out, full_disk, monkeypatch, links):
    """Polygons that cannot be copied take rasters and report with them, and all old files come back."""
    if not links:
        monkeypatch.setattr(os, "link", no_room)
    places = {name: str(out / file) for name, file in EVERY.items()}
    run(VECTOR, dates, **places)
    (out / "mask.tif.aux.xml").write_text("<PAMDataset/>")
    (out / "p.qml").unlink()
    before = folder_state(out)
    full_disk()
    change_stub.count = 5
    change_stub.shade = 7
    with pytest.raises(QgsProcessingException, match="disk is full"):
        run(VECTOR, dates, **places)
    assert folder_state(out) == before
    new = {name: str(out / f"new_{file}") for name, file in EVERY.items()}
    with pytest.raises(QgsProcessingException, match="disk is full"):
        run(VECTOR, dates, **new)
    assert folder_state(out) == before


def test_fault_a_run_that_was_killed_is_undone_by_the_next(change_stub, dates, out, monkeypatch):
    """Killed when rasters were new and polygons were not: the next run brings back the old ones first."""
    from kestrel.plugin import kept_files

    places = {name: str(out / file) for name, file in EVERY.items()}
    run(VECTOR, dates, **places)
    before = folder_state(out)
    with monkeypatch.context() as killed:
        killed.setattr(kept_files, "_put_back", lambda *_: None)
        killed.setattr(kept_files.KeptFiles, "commit", lambda self: None)
        change_stub.shade = 7
        run(VECTOR, dates, **{**places, "OUTPUT": "TEMPORARY_OUTPUT"})
    assert folder_state(out) != before
    change_stub.error = WorkerError("The two rasters do not overlap.", "", "", "input")
    with pytest.raises(QgsProcessingException, match="do not overlap"):
        run(VECTOR, dates, **places)
    assert folder_state(out) == before


def test_fault_old_files_that_cannot_be_kept_stop_the_run(change_stub, dates, out, monkeypatch):
    from kestrel.plugin import kept_files

    places = {name: str(out / file) for name, file in EVERY.items()}
    run(VECTOR, dates, **places)
    before = folder_state(out)
    monkeypatch.setattr(os, "link", no_room)
    monkeypatch.setattr(kept_files, "copy_whole", no_room)
    with pytest.raises(QgsProcessingException, match=r"mask\.tif could not be kept while .*No space left"):
        run(VECTOR, dates, **places)
    assert folder_state(out) == before
    assert len(change_stub.jobs) == 1
