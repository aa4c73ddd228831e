"""One algorithm, three ways in: toolbox, graphical model, qgis_process (the last in test_real.py)."""

import gc

import processing
import pytest
from kestrel.tests.support.algorithm_tools import layer_rows, make_polygons, square
from kestrel.tests.support.chain import build_model
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProject,
    QgsVectorLayer,
)

CFAR = "kestrel:detectshipscfar"


@pytest.fixture
def areas(tmp_path):
    return make_polygons(tmp_path / "areas.gpkg", [square(-100, 0, 600)])


def run_model(model, scene, out):
    targets = {f"{child}:{name}": str(out / f"{name}.gpkg") for child, name in CHAIN}
    feedback = QgsProcessingFeedback()
    results, ok = model.create().run({"SCENE": scene, **targets}, QgsProcessingContext(), feedback)
    return results, ok, feedback.textLog()


CHAIN = (("detect", "ships"), ("centroids", "points"), ("join", "joined"))


def test_model_gives_what_the_toolbox_gives_and_chains(stub, scene, out, areas):
    processing.run(CFAR, {"INPUT": scene, "OUTPUT": str(out / "alone.gpkg")})
    _, ok, log = run_model(build_model(CFAR, areas), scene, out)
    assert ok, log
    ships = layer_rows(out / "ships.gpkg")
    assert ships == layer_rows(out / "alone.gpkg")
    points = layer_rows(out / "points.gpkg")
    assert [row for row, _ in points] == [row for row, _ in ships]
    assert all(wkt.startswith("POINT") for _, wkt in points)
    # ids run from east to west in steps of 1000 m: only the last lies in the area
    joined = layer_rows(out / "joined.gpkg")
    assert [row["id"] for row, _ in joined] == [3]
    assert joined[0][0]["long_m"] is None
    assert (out / "ships.gpkg.kestrel.json").exists()


def test_model_with_a_temporary_first_step_chains_too(stub, scene, out, areas):
    model = build_model(CFAR, areas)
    detect = model.childAlgorithm("detect")
    detect.setModelOutputs({})
    model.setChildAlgorithm(detect)
    model.initAlgorithm()
    _, ok, log = run_model(model, scene, out)
    assert ok, log
    assert len(layer_rows(out / "points.gpkg")) == 3
    assert not (out / "ships.gpkg").exists()


def test_model_run_twice_replaces_its_outputs(stub, scene, out, areas):
    model = build_model(CFAR, areas)
    for stub.count in (4, 2):
        _, ok, log = run_model(model, scene, out)
        assert ok, log
    assert len(layer_rows(out / "ships.gpkg")) == 2


def test_bad_value_inside_a_model_fails_with_the_sentence(stub, scene, out, areas):
    feedback = QgsProcessingFeedback()
    model = build_model(CFAR, areas, GUARD=900)
    targets = {f"{child}:{name}": str(out / f"{name}.gpkg") for child, name in CHAIN}
    _, ok = model.create().run({"SCENE": scene, **targets}, QgsProcessingContext(), feedback)
    assert not ok
    assert "BACKGROUND (600 m) must be more than GUARD (900 m)." in feedback.textLog()
    assert stub.jobs == []


def test_model_in_the_toolbox_raises(stub, scene, out, areas):
    with pytest.raises(QgsProcessingException):
        processing.run(build_model(CFAR, areas, BAND=4), {"SCENE": scene})
    assert stub.jobs == []


def test_model_styles_the_layer_that_the_gui_loads(stub, scene, out, areas):
    """QGIS deletes a model's steps before it loads their layers; the styler must still live."""
    targets = {f"{child}:{name}": str(out / f"{name}.gpkg") for child, name in CHAIN}
    ships = targets["detect:ships"]
    targets["detect:ships"] = QgsProcessingOutputLayerDefinition(ships, QgsProject.instance())
    context, feedback = QgsProcessingContext(), QgsProcessingFeedback()
    context.setProject(QgsProject.instance())
    _, ok = build_model(CFAR, areas).create().run({"SCENE": scene, **targets}, context, feedback)
    assert ok, feedback.textLog()
    gc.collect()
    [details] = context.layersToLoadOnCompletion().values()
    layer = QgsVectorLayer("Polygon?field=score:double", "not styled yet", "memory")
    details.postProcessor().postProcessLayer(layer, context, feedback)
    assert layer.renderer().type() == "graduatedSymbol"
