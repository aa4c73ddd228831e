"""WEIGHTS in the dialogs of QGIS: a list of the released weights that takes any name or path."""

import importlib
import json

import pytest
from kestrel.plugin import weight_files
from kestrel.tests.support.algorithm_tools import fake_weights
from kestrel.tests.support.raster_tools import hazy_raster
from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildParameterSource,
)
from qgis.gui import QgsProcessingModelerParameterWidget
from qgis.PyQt.QtWidgets import QComboBox, QFileDialog, QToolButton

PATH = "/data/my weights.v1/own.safetensors"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """One released, one preliminary, one of another model."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(weight_files, "FOLDER", folder)
    status = {"dehazing": "released", "dehazing_new": "preliminary", "sar_ships": "released"}
    entries = {name: {"file": f"{name}.safetensors", "status": status[name]} for name in status}
    for entry in entries.values():
        fake_weights(folder / entry["file"])
    (folder / "manifest.json").write_text(json.dumps(entries))


@pytest.fixture(autouse=True)
def no_iface(provider, qgis_new_project, shipped, monkeypatch):
    """pytest-qgis's pretended one does not do for dialogs."""
    for module in ("gui.ParametersPanel", "gui.BatchPanel", "modeler.ModelerParametersDialog"):
        monkeypatch.setattr(importlib.import_module(f"processing.{module}"), "iface", None)


@pytest.fixture
def dialog():
    """Return a function that opens the algorithm's dialog."""
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    opened = []

    def open_dialog(name="dehaze"):
        algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"kestrel:{name}")
        opened.append(AlgorithmDialog(algorithm, False, None))
        return opened[-1]

    yield open_dialog
    for each in opened:
        each.close()
        each.deleteLater()


def box_of(dialog):
    return dialog.mainWidget().wrappers["WEIGHTS"].wrappedWidget().findChild(QComboBox)


def listed(box):
    return [box.itemText(index) for index in range(box.count())]


def typed(dialog):
    return dialog.mainWidget().createProcessingParameters()["WEIGHTS"]


@pytest.mark.parametrize(
    ("name", "names"), [("dehaze", ["", "dehazing"]), ("detectships", ["", "sar_ships"])]
)
def test_feature_dialog_lists_the_released_weights_of_its_model(dialog, name, names):
    box = box_of(dialog(name))
    assert listed(box) == names
    assert box.isEditable()
    assert box.lineEdit().placeholderText() == "The shipped weights"


@pytest.mark.parametrize(
    ("shown", "sent"),
    [("", None), ("  ", None), ("dehazing", "dehazing"), ("dehazing_new", "dehazing_new"), (PATH, PATH)],
)
def test_feature_what_is_typed_is_sent(dialog, tmp_path, shown, sent):
    opened = dialog()
    opened.setParameters({"INPUT": hazy_raster(tmp_path / "hazy.tif")})
    assert typed(opened) is None
    told = []
    opened.mainWidget().wrappers["WEIGHTS"].widgetValueHasChanged.connect(told.append)
    box_of(opened).setEditText(shown)
    assert typed(opened) == sent
    assert bool(told) == bool(shown)


@pytest.mark.parametrize("value", ["dehazing", "dehazing_new", PATH, None])
def test_feature_history_and_saved_values_come_back(dialog, tmp_path, value):
    opened = dialog()
    opened.setParameters({"INPUT": hazy_raster(tmp_path / "hazy.tif"), "WEIGHTS": value})
    assert typed(opened) == value


@pytest.mark.parametrize(("chosen", "sent"), [(PATH, PATH), ("", "dehazing")])
def test_feature_button_chooses_a_file_or_leaves_what_was_there(dialog, tmp_path, monkeypatch, chosen, sent):
    opened = dialog()
    opened.setParameters({"INPUT": hazy_raster(tmp_path / "hazy.tif"), "WEIGHTS": "dehazing"})
    asked = []
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (asked.append(a[2:]), (chosen, ""))[1])
    opened.mainWidget().wrappers["WEIGHTS"].wrappedWidget().findChild(QToolButton).click()
    assert typed(opened) == sent
    assert asked[0][1] == "Weights (*.safetensors)"


def test_feature_batch_dialog_has_the_list_in_every_row():
    from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog

    opened = BatchAlgorithmDialog(QgsApplication.processingRegistry().createAlgorithmById("kestrel:dehaze"))
    panel = opened.mainWidget()
    panel.addRow()
    column = panel.column_to_parameter_definition
    [place] = [index for index, name in column.items() if name == "WEIGHTS"]
    wrappers = [row[place] for row in panel.wrappers]
    wrappers[0].setParameterValue(PATH, QgsProcessingContext())
    assert len(wrappers) >= 2
    assert wrappers[0].parameterValue() == PATH
    assert wrappers[1].parameterValue() is None
    assert listed(wrappers[1].wrappedWidget().findChild(QComboBox)) == ["", "dehazing"]
    opened.close()
    opened.deleteLater()


@pytest.mark.parametrize("value", ["dehazing", PATH])
def test_feature_modeler_keeps_its_own_widget_and_the_value(value):
    """There a value may also come from the model's inputs, which a list does not know."""
    from processing.modeler.ModelerParametersDialog import ModelerParametersDialog

    algorithm = QgsApplication.processingRegistry().createAlgorithmById("kestrel:dehaze")
    opened = ModelerParametersDialog(algorithm, QgsProcessingModelAlgorithm("m", "tests"))
    wrapper = opened.widget.widget.wrappers["WEIGHTS"]
    assert isinstance(wrapper, QgsProcessingModelerParameterWidget)
    source = QgsProcessingModelChildParameterSource
    wrapper.setWidgetValue(source.fromStaticValue(value))
    [stored] = opened.createAlgorithm().parameterSources()["WEIGHTS"]
    assert stored.staticValue() == value
    opened.close()
    opened.deleteLater()
