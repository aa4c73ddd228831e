"""What kestrel:dehazedarkchannel leaves: rasters, style, history, nothing else (stub worker)."""

import gc
import json
import os
import subprocess
import threading
from pathlib import Path

import processing
import pytest
from kestrel.tests.support.algorithm_tools import make_raster
from kestrel.tests.support.raster_chain import build_raster_model
from kestrel.tests.support.raster_tools import hazy_raster, pixels
from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsContrastEnhancement,
    QgsMultiBandColorRenderer,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QEventLoop, QTimer

DEHAZE = "kestrel:dehazedarkchannel"


def run(hazy, output="TEMPORARY_OUTPUT", **more):
    feedback = QgsProcessingFeedback()
    result = processing.run(DEHAZE, {"INPUT": hazy, "OUTPUT": output, **more}, feedback=feedback)
    return result, feedback.textLog()


def stretch_of(layer):
    """Bands and limits of a layer that is shown in colours."""
    renderer = layer.renderer()
    assert renderer.type() == "multibandcolor"
    enhancements = (
        renderer.redContrastEnhancement(),
        renderer.greenContrastEnhancement(),
        renderer.blueContrastEnhancement(),
    )
    limits = [(each.minimumValue(), each.maximumValue()) for each in enhancements]
    return [renderer.redBand(), renderer.greenBand(), renderer.blueBand()], limits


def dead_process():
    done = subprocess.Popen(["/bin/true"])
    done.wait()
    return done.pid


def test_feature_only_what_was_asked_for_is_made_and_returned(raster_stub, hazy, out):
    result, _ = run(hazy, str(out / "a.tif"))
    assert result == {"OUTPUT": str(out / "a.tif")}
    assert sorted(os.listdir(out)) == ["a.qml", "a.tif", "a.tif.kestrel.json"]
    more = {"OUTPUT_HAZE": str(out / "h.tif"), "REPORT": str(out / "r.html")}
    result, _ = run(hazy, str(out / "b.tif"), **more)
    assert result == {"OUTPUT": str(out / "b.tif"), **more}
    assert (out / "r.html").read_text() == "<html>stub</html>"
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_feature_temporary_outputs_are_files(raster_stub, hazy):
    result, _ = run(hazy, OUTPUT_HAZE="TEMPORARY_OUTPUT", REPORT="TEMPORARY_OUTPUT")
    for path in result.values():
        assert os.path.isfile(path)
    assert pixels(result["OUTPUT"]) == pixels(hazy)
    assert gdal.Open(result["OUTPUT_HAZE"]).RasterCount == 1


def test_feature_name_without_an_ending_becomes_a_tif(raster_stub, hazy, out):
    result, _ = run(hazy, str(out / "clear v1"), OUTPUT_HAZE=str(out / "haze"))
    assert result == {"OUTPUT": str(out / "clear v1.tif"), "OUTPUT_HAZE": str(out / "haze.tif")}
    assert (out / "clear v1.tif.kestrel.json").is_file()


def test_feature_link_is_followed_and_stays(raster_stub, hazy, out, tmp_path):
    os.symlink(tmp_path / "real.tif", out / "link.tif")
    run(hazy, str(out / "link.tif"))
    assert raster_stub.jobs[0].outputs["raster"] == str(tmp_path / "real.tif")
    assert (out / "link.tif").is_symlink()


def test_feature_path_with_space_dot_quote_and_umlaut(raster_stub, hazy, out):
    folder = out / "Nebel v1.0 d'été"
    folder.mkdir()
    path = folder / "klares Bild.final.tif"
    for _ in range(2):
        run(hazy, str(path))
    names = ["klares Bild.final.qml", "klares Bild.final.tif", "klares Bild.final.tif.kestrel.json"]
    assert sorted(os.listdir(folder)) == names


def test_feature_output_opens_with_the_stretch_of_the_input(raster_stub, tmp_path, out):
    raster_stub.bands, raster_stub.places = [3, 2, 1], [3, 2, 1]
    raster_stub.stretch = {"low": [1.5, 2.0, 3.0], "high": [1000.25, 2000.0, 3000.0]}
    hazy = hazy_raster(tmp_path / "five.tif", bands=5, kind=gdal.GDT_UInt16, colours=())
    result, _ = run(hazy, str(out / "a.tif"))
    layer = QgsRasterLayer(result["OUTPUT"], "a")
    assert stretch_of(layer) == ([3, 2, 1], [(1.5, 1000.25), (2.0, 2000.0), (3.0, 3000.0)])
    assert layer.renderer().alphaBand() == -1


def test_feature_alpha_stays_transparent_in_the_style(raster_stub, tmp_path, out):
    colours = (gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand, gdal.GCI_AlphaBand)
    hazy = make_raster(tmp_path / "rgba.tif", bands=4, colours=colours)
    result, _ = run(hazy, str(out / "a.tif"))
    layer = QgsRasterLayer(result["OUTPUT"], "a")
    assert layer.renderer().alphaBand() == 4


@pytest.mark.parametrize(
    ("told", "shown"), [([0.0, 0.5], (0.0, 0.5)), (None, (0.0, 0.3)), ([0.0, 0.0], (0.0, 0.3))]
)
def test_feature_haze_opens_in_a_sequential_ramp(raster_stub, hazy, out, told, shown):
    raster_stub.more = {"haze_range": told} if told else {}
    result, _ = run(hazy, OUTPUT_HAZE=str(out / "h.tif"))
    layer = QgsRasterLayer(result["OUTPUT_HAZE"], "h")
    renderer = layer.renderer()
    assert renderer.type() == "singlebandpseudocolor"
    assert (renderer.classificationMin(), renderer.classificationMax()) == shown
    items = renderer.shader().rasterShaderFunction().colorRampItemList()
    assert [item.value for item in items] == pytest.approx([shown[0], sum(shown) / 2, shown[1]])
    lightness = [item.color.lightness() for item in items]
    assert lightness == sorted(lightness, reverse=True)


def test_feature_style_of_a_vector_layer_with_the_same_name_stays(raster_stub, hazy, out):
    (out / "a.qml").write_text("<qgis><renderer-v2/></qgis>")
    run(hazy, str(out / "a.tif"))
    assert (out / "a.qml").read_text() == "<qgis><renderer-v2/></qgis>"


def run_as_the_gui(parameters, algorithm=None):
    """Prepare here, run in a thread; return results, context, log, and keep the algorithm alive."""
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    feedback = QgsProcessingFeedback()
    algorithm = algorithm or QgsApplication.processingRegistry().createAlgorithmById(DEHAZE)
    task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
    finished = []
    loop = QEventLoop()
    task.executed.connect(lambda ok, results: (finished.append((ok, results)), loop.quit()))
    QgsApplication.taskManager().addTask(task)
    QTimer.singleShot(20000, loop.quit)
    loop.exec_()
    [(ok, results)] = finished
    assert ok, feedback.textLog()
    return results, context, (algorithm, task, feedback)


def loaded(path, context):
    """The layer as the GUI would load and post-process it."""
    layer = QgsProcessingUtils.mapLayerFromString(path, context)
    context.layerToLoadOnCompletionDetails(path).postProcessor().postProcessLayer(
        layer, context, QgsProcessingFeedback()
    )
    return layer


def to_project(path):
    return QgsProcessingOutputLayerDefinition(str(path), QgsProject.instance())


def test_feature_gui_runs_in_the_background_and_styles_both_layers(raster_stub, hazy, out):
    threads = []
    raster_stub.before = lambda job: threads.append(threading.current_thread())
    parameters = {"INPUT": hazy, "OUTPUT": to_project(out / "a"), "OUTPUT_HAZE": to_project(out / "h.tif")}
    results, context, _kept = run_as_the_gui(parameters)
    assert threads[0] is not threading.main_thread()
    assert results["OUTPUT"] == str(out / "a.tif")
    assert stretch_of(loaded(results["OUTPUT"], context)) == ([1, 2, 3], [(0, 255), (10, 200), (20, 150)])
    assert loaded(results["OUTPUT_HAZE"], context).renderer().type() == "singlebandpseudocolor"


def layer_with_stretch(path, bands, limits):
    layer = QgsRasterLayer(path, "shown")
    renderer = QgsMultiBandColorRenderer(layer.dataProvider(), *bands)
    setters = (
        renderer.setRedContrastEnhancement,
        renderer.setGreenContrastEnhancement,
        renderer.setBlueContrastEnhancement,
    )
    for setter, (low, high) in zip(setters, limits, strict=True):
        enhancement = QgsContrastEnhancement(layer.dataProvider().dataType(1))
        enhancement.setMinimumValue(low)
        enhancement.setMaximumValue(high)
        enhancement.setContrastEnhancementAlgorithm(
            QgsContrastEnhancement.ContrastEnhancementAlgorithm.StretchToMinimumMaximum
        )
        setter(enhancement)
    layer.setRenderer(renderer)
    QgsProject.instance().addMapLayer(layer)
    return layer


@pytest.mark.parametrize(
    ("others", "shown", "expected"),
    [
        ("copy", [5, 1, 2], [5, 1, 2]),
        ("drop", [3, 2, 1], [1, 2, 3]),
        ("drop", [5, 1, 2], None),
    ],
)
def test_feature_gui_shows_the_output_as_the_input_is_shown(
    raster_stub, tmp_path, out, others, shown, expected
):
    """Unless the output lacks a band of it; the file's own style is the stretch of the run."""
    raster_stub.bands = [3, 2, 1]
    raster_stub.places = [3, 2, 1] if others == "copy" else [1, 2, 3]
    hazy = hazy_raster(tmp_path / "five.tif", bands=5, kind=gdal.GDT_UInt16, colours=())
    limits = [(11.0, 99.0), (12.0, 98.0), (13.0, 97.0)]
    layer = layer_with_stretch(hazy, shown, limits)
    parameters = {"INPUT": layer, "OTHER_BANDS": others, "OUTPUT": to_project(out / "a.tif")}
    results, context, _kept = run_as_the_gui(parameters)
    own = (raster_stub.places, [(0, 255), (10, 200), (20, 150)])
    assert stretch_of(loaded(results["OUTPUT"], context)) == ((expected, limits) if expected else own)
    assert stretch_of(QgsRasterLayer(results["OUTPUT"], "again")) == own


def test_feature_model_in_the_gui_styles_its_layer(raster_stub, hazy, out):
    """QGIS deletes a model's steps before it loads their layers; the styler must still live."""
    model = build_raster_model(DEHAZE)
    parameters = {"SCENE": hazy, "dehaze:clear": to_project(out / "a.tif"), "warp:warped": str(out / "w.tif")}
    _, context, _kept = run_as_the_gui(parameters, model.create())
    gc.collect()
    assert stretch_of(loaded(str(out / "a.tif"), context))[1] == [(0, 255), (10, 200), (20, 150)]


@pytest.mark.parametrize("keep", [True, False])
def test_feature_model_chains_into_a_warp(raster_stub, hazy, out, keep):
    model = build_raster_model(DEHAZE, keep=keep, STRENGTH=0.5)
    targets = {"warp:warped": str(out / "warped.tif")}
    if keep:
        targets["dehaze:clear"] = str(out / "clear.tif")
    feedback = QgsProcessingFeedback()
    _, ok = model.create().run({"SCENE": hazy, **targets}, QgsProcessingContext(), feedback)
    assert ok, feedback.textLog()
    assert raster_stub.jobs[0].params["strength"] == 0.5
    assert pixels(out / "warped.tif") == pixels(hazy)
    assert (out / "clear.tif").exists() == keep


QUALITY = {"input": {"psnr": 17.5, "ssim": 0.6}, "output": {"psnr": 20.0, "ssim": 0.75}}


def test_feature_history_tells_how_the_outputs_were_made(raster_stub, hazy, out):
    raster_stub.more = {"haze_range": [0.0, 0.2], "quality": QUALITY}
    reference = hazy_raster(out.parent / "reference.tif")
    more = {"REFERENCE": reference, "OUTPUT_HAZE": str(out / "h.tif"), "REPORT": str(out / "r.html")}
    _, log = run(hazy, str(out / "a.tif"), OMEGA=0.9, STRETCH_MIN="1,2,3", STRETCH_MAX="200", **more)
    content = json.loads((out / "a.tif.kestrel.json").read_text())
    assert content == json.loads((out / "h.tif.kestrel.json").read_text())
    assert content["algorithm"] == DEHAZE
    typed = content["parameters"]
    assert (typed["OMEGA"], typed["PATCH"], typed["STRETCH_MIN"]) == (0.9, 15, "1,2,3")
    assert (content["stretch"], content["bands"], content["output_bands"]) == (
        {"low": [0.0, 10.0, 20.0], "high": [255.0, 200.0, 150.0], "source": "given"},
        [1, 2, 3],
        [1, 2, 3],
    )
    assert content["haze_range"] == [0.0, 0.2]
    assert content["quality"] == QUALITY
    assert "Against REFERENCE before: PSNR 17.50 dB, SSIM 0.6000." in log
    assert "Against REFERENCE after: PSNR 20.00 dB, SSIM 0.7500." in log
    assert content["warnings"] == ["a stub warned"]
    assert content["parameters_used"] == {"tile": 512}
    inputs = [(entry["parameter"], entry["path"]) for entry in content["inputs"]]
    assert inputs == [("INPUT", hazy), ("REFERENCE", reference)]


def test_fault_history_that_cannot_be_written_warns_and_leaves_no_old_one(raster_stub, hazy, out):
    (out / "a.tif.kestrel.json").mkdir()
    result, log = run(hazy, str(out / "a.tif"))
    assert "OUTPUT is complete, but" in log
    assert pixels(result["OUTPUT"]) == pixels(hazy)
    assert not (out / "a.qml").exists()


def leave_parts(folder, pid):
    """What a killed worker leaves beside a.tif and h.tif, and files of others that only look alike."""
    ours = [
        f".a.tif.{pid}.part.tif",
        f".a.tif.{pid}.part.tif.ovr",
        f".h.tif.{pid}.part.tif",
        ".a.tif.run.lock",
    ]
    ours += [f".r.html.{pid}.part.html", ".a.tif.kestrel.bak", f".a.tif.kestrel.json.{pid}.part"]
    others = [f".b.tif.{pid}.part.tif", f".a.tif.{os.getpid()}.part.tif", ".a.tif.part.tif", "a.tif.part"]
    for name in ours + others:
        (folder / name).write_text(name)
    return sorted(others)


OUTPUTS = {"OUTPUT_HAZE": "h.tif", "REPORT": "r.html"}


def test_fault_cancel_clears_the_parts_of_the_killed_worker(raster_stub, hazy, out):
    from kestrel.plugin.errors import WorkerCancelled

    others = []
    raster_stub.before = lambda job: others.extend(leave_parts(out, dead_process()))
    raster_stub.error = WorkerCancelled()
    for name in ("a.tif", "a.qml", "a.tif.kestrel.json"):
        (out / name).write_text(f"old {name}")
    with pytest.raises(QgsProcessingException, match="Cancelled; nothing was written"):
        run(hazy, str(out / "a.tif"), **{name: str(out / file) for name, file in OUTPUTS.items()})
    assert sorted(os.listdir(out)) == sorted([*others, "a.qml", "a.tif", "a.tif.kestrel.json"])
    for name in ("a.tif", "a.qml", "a.tif.kestrel.json"):
        assert (out / name).read_text() == f"old {name}"
    assert not os.path.exists(raster_stub.jobs[0].scratch)


def test_fault_parts_of_an_earlier_crash_are_cleared_by_the_next_run(raster_stub, hazy, out):
    others = leave_parts(out, dead_process())
    run(hazy, str(out / "a.tif"), **{name: str(out / file) for name, file in OUTPUTS.items()})
    assert sorted(name for name in os.listdir(out) if name in others or name.startswith(".")) == others


def test_fault_output_set_aside_by_a_killed_worker_is_put_back(raster_stub, hazy, out):
    """Where files have no second name, the old output waits under another while the new one moves in."""
    from kestrel.plugin.errors import WorkerError

    (out / "a.tif").write_text("old")
    raster_stub.before = lambda job: os.replace(out / "a.tif", out / ".a.tif.kestrel.bak")
    raster_stub.error = WorkerError("The worker was ended by SIGKILL.")
    with pytest.raises(QgsProcessingException, match="SIGKILL"):
        run(hazy, str(out / "a.tif"))
    assert os.listdir(out) == ["a.tif"]
    assert (out / "a.tif").read_text() == "old"


def test_fault_cancel_after_the_end_says_what_stays(raster_stub, hazy, out):
    from kestrel.plugin.errors import WorkerCancelled

    run(hazy, str(out / "a.tif"))
    raster_stub.late_error = WorkerCancelled()
    with pytest.raises(QgsProcessingException, match=r"Cancelled, but .*a\.tif had just been finished"):
        run(hazy, str(out / "a.tif"))
    # the style and history of the raster before are no longer true
    assert os.listdir(out) == ["a.tif"]


def test_fault_two_runs_to_one_output_are_kept_apart(raster_stub, hazy, out):
    def again(job):
        raster_stub.before = None
        with pytest.raises(QgsProcessingException, match=r"OUTPUT: another run is writing .*a\.tif; wait"):
            run(hazy, str(out / "a.tif"))

    raster_stub.before = again
    run(hazy, str(out / "a.tif"))
    assert len(raster_stub.jobs) == 1
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_fault_unexpected_error_becomes_a_sentence(raster_stub, hazy, out):
    raster_stub.error = RuntimeError("boom")
    with pytest.raises(QgsProcessingException, match="Unexpected RuntimeError: boom"):
        run(hazy, str(out / "a.tif"))
    assert os.listdir(out) == []
    assert not os.path.exists(raster_stub.jobs[0].scratch)


def test_feature_input_stays_as_it_is(raster_stub, hazy, out):
    before = Path(hazy).read_bytes()
    run(hazy, str(out / "a.tif"))
    assert Path(hazy).read_bytes() == before
    # QGIS itself keeps statistics in hazy.tif.aux.xml
    assert set(os.listdir(os.path.dirname(hazy))) <= {"hazy.tif", "hazy.tif.aux.xml"}
