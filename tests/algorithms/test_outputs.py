"""Where results go: every kind of destination, styles, sidecar, report (stub worker)."""

import json
import os
import sqlite3
import threading

import processing
import pytest
from kestrel.tests.support.algorithm_tools import NAMES, layer_rows, make_polygons, square
from qgis.core import (
    QgsApplication,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingUtils,
    QgsProject,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QEventLoop, QTimer

CFAR = "kestrel:detectshipscfar"


def run(scene, output, **more):
    return processing.run(CFAR, {"INPUT": scene, "OUTPUT": output, **more})


@pytest.mark.parametrize("ending", ["gpkg", "geojson", "shp", "fgb", "sqlite"])
def test_feature_file_holds_every_feature_with_its_id(stub, scene, out, ending):
    result = run(scene, str(out / f"ships.{ending}"))
    assert result["COUNT"] == 3
    rows = layer_rows(result["OUTPUT"])
    assert sorted(row["id"] for row, _ in rows) == [1, 2, 3]
    by_id = {row["id"]: (row, wkt) for row, wkt in rows}
    assert by_id[1][0]["score"] > by_id[3][0]["score"]
    assert by_id[1][0]["edge"] in (1, True)
    assert by_id[3][0]["long_m"] is None
    # id 1 lies farthest east
    assert "502000 4499960" in by_id[1][1]
    assert [name for name in rows[0][0] if name in NAMES] == NAMES
    if ending in ("gpkg", "geojson", "shp"):
        assert [row["id"] for row, _ in rows] == [1, 2, 3]


def test_feature_memory_output_carries_crs_fields_and_order(stub, scene):
    result = run(scene, "memory:")
    layer = result["OUTPUT"]
    assert [field.name() for field in layer.fields()] == NAMES
    assert layer.crs().authid() == "EPSG:32630"
    assert [feature["id"] for feature in layer.getFeatures()] == [1, 2, 3]


def test_returned_keys_are_declared(stub, scene, out, qgis_app):
    algorithm = qgis_app.processingRegistry().algorithmById(CFAR)
    declared = {output.name() for output in algorithm.outputDefinitions()}
    result = run(scene, str(out / "a.gpkg"), REPORT=str(out / "a.html"))
    assert set(result) == declared
    assert set(run(scene, str(out / "b.gpkg"))) == declared - {"REPORT"}


def test_empty_result_is_a_layer_with_fields(stub, scene, out):
    stub.count = 0
    result = run(scene, str(out / "none.gpkg"))
    layer = QgsVectorLayer(result["OUTPUT"], "none", "ogr")
    assert result["COUNT"] == layer.featureCount() == 0
    assert [field.name() for field in layer.fields()] == ["fid", *NAMES]
    assert layer.crs().authid() == "EPSG:32630"


def test_no_crs_result_has_none(stub, scene, out):
    stub.epsg = None
    # not a GeoPackage: GDAL 3.6 calls its missing CRS "Undefined geographic", QGIS takes that for one
    result = run(scene, str(out / "plain.shp"))
    assert not QgsVectorLayer(result["OUTPUT"], "plain", "ogr").crs().isValid()
    assert not run(scene, "memory:")["OUTPUT"].crs().isValid()


def test_geopackage_opens_styled(stub, scene, out):
    path = run(scene, str(out / "ships.gpkg"))["OUTPUT"]
    layer = QgsVectorLayer(path, "ships", "ogr")
    assert layer.renderer().type() == "graduatedSymbol"
    assert layer.renderer().classAttribute() == "score"
    assert not layer.labelsEnabled()
    assert layer.attributeAlias(layer.fields().indexOf("area_m2")) == "Area of the box (m²)"
    assert not [name for name in os.listdir(out) if name.endswith((".qml", ".bak", ".lock", ".part"))]


def test_other_formats_open_styled_and_keep_a_style_of_the_user(stub, scene, out):
    path = run(scene, str(out / "ships.geojson"))["OUTPUT"]
    assert QgsVectorLayer(path, "ships", "ogr").renderer().classAttribute() == "score"
    (out / "ships.qml").write_text("mine")
    run(scene, path)
    assert (out / "ships.qml").read_text() == "mine"


def test_table_keeps_the_style_saved_for_it(stub, scene, out):
    shared = out / "shared.gpkg"
    table = f"ogr:dbname='{shared}' table=\"ships\" (geom)"
    run(scene, table)
    with sqlite3.connect(shared) as data:
        data.execute("UPDATE layer_styles SET styleName = 'mine'")
    data.close()
    run(scene, table)
    with sqlite3.connect(shared) as data:
        assert data.execute("SELECT f_table_name, styleName FROM layer_styles").fetchall() == [
            ("ships", "mine")
        ]
    data.close()


def test_gui_styles_by_a_post_processor(stub, scene, qgis_app):
    context = QgsProcessingContext()
    feedback = QgsProcessingFeedback()
    algorithm = qgis_app.processingRegistry().createAlgorithmById(CFAR)
    definition = QgsProcessingOutputLayerDefinition("memory:", QgsProject.instance())
    parameters = {"INPUT": scene, "OUTPUT": definition}
    assert algorithm.prepare(parameters, context, feedback)
    result = algorithm.runPrepared(parameters, context, feedback)
    details = context.layerToLoadOnCompletionDetails(result["OUTPUT"])
    layer = QgsProcessingUtils.mapLayerFromString(result["OUTPUT"], context)
    assert details.postProcessor() is not None
    details.postProcessor().postProcessLayer(layer, context, feedback)
    assert layer.renderer().classAttribute() == "score"
    assert layer.attributeAlias(1) == "Score (0 to 1)"


def test_background_thread_of_the_gui(stub, scene, out, qgis_app):
    """As the toolbox runs it: prepared here, run in a thread, finished here, loaded and styled."""
    threads = []
    stub.seen = lambda job: threads.append(threading.current_thread())
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    feedback = QgsProcessingFeedback()
    definition = QgsProcessingOutputLayerDefinition(str(out / "ships.geojson"), QgsProject.instance())
    algorithm = qgis_app.processingRegistry().createAlgorithmById(CFAR)
    task = QgsProcessingAlgRunnerTask(algorithm, {"INPUT": scene, "OUTPUT": definition}, context, feedback)
    finished = []
    loop = QEventLoop()
    task.executed.connect(lambda ok, results: (finished.append((ok, results)), loop.quit()))
    QgsApplication.taskManager().addTask(task)
    QTimer.singleShot(20000, loop.quit)
    loop.exec_()
    [(ok, results)] = finished
    assert ok, feedback.textLog()
    assert threads[0] is not threading.main_thread()
    assert results["COUNT"] == 3
    assert context.layerToLoadOnCompletionDetails(results["OUTPUT"]).postProcessor() is not None


def test_sidecar_tells_how_the_output_was_made(stub, scene, out):
    area = make_polygons(out.parent / "aoi.gpkg", [square(0, 0, 400)])
    run(scene, str(out / "ships.gpkg"), AOI=area, PFA=1e-5)
    content = json.loads((out / "ships.gpkg.kestrel.json").read_text())
    assert content["algorithm"] == CFAR
    assert content["kestrel"]
    assert content["parameters"]["PFA"] == 1e-5
    assert content["parameters"]["GUARD"] == pytest.approx(stub.jobs[0].params["guard"])
    assert content["parameters"]["AOI"] == area
    assert content["parameters"]["INPUT"] == scene
    assert content["parameters_used"] == {"tile": 640}
    assert content["model"]["sha256"].startswith("0123456789ab")
    assert content["tiles"] == {"run": 1, "skipped": 2, "total": 3}
    assert content["warnings"] == ["a stub warned"]
    inputs = [(entry["parameter"], entry["path"], entry["size"]) for entry in content["inputs"]]
    assert inputs == [("INPUT", scene, os.path.getsize(scene)), ("AOI", area, os.path.getsize(area))]
    for key in ("versions", "scaling", "seconds", "device", "count", "finished"):
        assert content[key] is not None, key


def test_sidecar_of_a_table_names_file_and_layer(stub, scene, out):
    run(scene, f"ogr:dbname='{out}/shared.gpkg' table=\"ships\" (geom)")
    assert (out / "shared.gpkg.ships.kestrel.json").is_file()


def test_memory_output_writes_nothing_beside_anything(stub, scene, out, monkeypatch):
    monkeypatch.chdir(out)
    run(scene, "TEMPORARY_OUTPUT")
    assert os.listdir(out) == []
    # QGIS itself keeps statistics in scene.tif.aux.xml
    assert set(os.listdir(os.path.dirname(scene))) <= {"scene.tif", "scene.tif.aux.xml"}


def test_report_replaces_an_old_one(stub, scene, out):
    (out / "r.html").write_text("old")
    result = run(scene, "memory:", REPORT=str(out / "r.html"))
    assert (out / "r.html").read_text() == "<html>stub</html>"
    assert result["REPORT"] == str(out / "r.html")
    assert os.listdir(out) == ["r.html"]


def test_path_with_space_dot_quote_and_umlaut(stub, scene, out):
    folder = out / "Häfen v1.0 d'été"
    folder.mkdir()
    path = folder / "meine Schiffe.final.gpkg"
    run(scene, str(path))
    run(scene, str(path))
    assert len(layer_rows(path)) == 3
    assert sorted(os.listdir(folder)) == [path.name, f"{path.name}.kestrel.json"]


def test_path_without_ending_becomes_a_geopackage(stub, scene, out):
    run(scene, str(out / "ships"))
    run(scene, str(out / "ships"))
    assert sorted(os.listdir(out)) == ["ships.gpkg", "ships.gpkg.kestrel.json"]


def test_scratch_is_removed(stub, scene, out):
    run(scene, str(out / "a.gpkg"))
    stub.error = RuntimeError("boom")
    with pytest.raises(Exception, match="boom"):
        run(scene, str(out / "a.gpkg"))
    assert len(stub.jobs) == 2
    assert not any(os.path.exists(job.scratch) for job in stub.jobs)
