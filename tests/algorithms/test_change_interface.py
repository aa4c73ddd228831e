"""What users, scripts and models rely on in the algorithms of two dates: parameters, help, styles."""

import xml.etree.ElementTree as ElementTree

import pytest
from kestrel.tests.support.algorithm_tools import ROOT
from qgis.core import QgsPalettedRasterRenderer, QgsProcessingParameterDefinition, QgsRasterLayer

DATES = [("BEFORE", None), ("AFTER", None), ("BANDS_BEFORE", None), ("BANDS_AFTER", None)]
RADIOMETRY = [("STRETCH_MIN", None), ("STRETCH_MAX", None), ("MATCH_RADIOMETRY", False), ("ALIGN", "none")]
SHAPES = [
    ("THRESHOLD", 0.0),
    ("MIN_AREA", -1.0),
    ("SIMPLIFY", 0.0),
    ("REGULARISE", False),
    ("EXTENT", None),
    ("AOI", None),
    ("TILE", 256),
    ("OVERLAP", 64),
]
OUTPUTS = [
    ("REFERENCE", None),
    ("OUTPUT", None),
    ("OUTPUT_MASK", None),
    ("OUTPUT_PROBABILITY", None),
    ("REPORT", None),
]
PARAMETERS = {
    "detectchangevector": [*DATES, *RADIOMETRY, *SHAPES, *OUTPUTS],
    "detectbuildingchange": [
        *DATES,
        ("WEIGHTS", None),
        *RADIOMETRY,
        ("RESAMPLE", False),
        *SHAPES,
        ("BATCH", 0),
        ("DEVICE", "auto"),
        *OUTPUTS,
    ],
}
NAMES = sorted(PARAMETERS)
NEEDED = {"BEFORE", "AFTER", "OUTPUT"}


@pytest.mark.parametrize("name", NAMES)
def test_feature_parameters_and_defaults_are_the_fixed_ones(provider, name):
    algorithm = provider.algorithm(name)
    assert [(p.name(), p.defaultValue()) for p in algorithm.parameterDefinitions()] == PARAMETERS[name]
    optional = QgsProcessingParameterDefinition.Flag.FlagOptional
    needed = {p.name() for p in algorithm.parameterDefinitions() if not p.flags() & optional}
    assert {each for each in needed if dict(PARAMETERS[name])[each] is None} == NEEDED


@pytest.mark.parametrize("name", NAMES)
def test_feature_outputs_are_declared_and_optional_ones_not_made_unasked(provider, name):
    algorithm = provider.algorithm(name)
    outputs = ["OUTPUT", "OUTPUT_MASK", "OUTPUT_PROBABILITY", "REPORT"]
    assert [o.name() for o in algorithm.outputDefinitions()] == outputs
    made = [each for each in outputs if algorithm.parameterDefinition(each).createByDefault()]
    assert made == ["OUTPUT"]


@pytest.mark.parametrize("name", NAMES)
def test_feature_name_group_icon_and_help(provider, name):
    algorithm = provider.algorithm(name)
    assert (algorithm.group(), algorithm.groupId()) == ("Change", "change")
    assert not algorithm.icon().isNull()
    assert (ROOT / "resources" / "icons" / algorithm.svgIconPath().rpartition("/")[2]).is_file()
    text = algorithm.shortHelpString()
    assert ElementTree.fromstring(f"<help>{text}</help>") is not None
    for parameter in algorithm.parameterDefinitions():
        assert len(parameter.help()) > 15, parameter.name()
    assert "does not tell the direction" in text
    assert "never sieved" in text


def test_feature_help_of_the_network_tells_that_the_order_matters(provider):
    assert "order of dates matters" in provider.algorithm("detectbuildingchange").shortHelpString()


def test_feature_bands_belong_to_their_dates(provider):
    algorithm = provider.algorithm("detectchangevector")
    for name in ("BEFORE", "AFTER"):
        bands = algorithm.parameterDefinition(f"BANDS_{name}")
        assert bands.allowMultiple()
        assert bands.parentLayerParameterName() == name
    assert algorithm.parameterDefinition("ALIGN").options() == ["none", "shift"]


def test_feature_raster_styles_are_read_by_qgis(provider, dates):
    layer = QgsRasterLayer(dates["BEFORE"])
    styles = ROOT / "resources" / "styles"
    _, ok = layer.loadNamedStyle(str(styles / "change_mask.qml"))
    assert ok
    assert isinstance(layer.renderer(), QgsPalettedRasterRenderer)
    assert layer.renderer().opacity() == pytest.approx(0.6)
    colours = {each.value: (each.color.name(), each.color.alpha()) for each in layer.renderer().classes()}
    assert colours == {0: ("#ffffff", 0), 1: ("#e31a1c", 255)}
    _, ok = layer.loadNamedStyle(str(styles / "change_probability.qml"))
    assert ok
    shader = layer.renderer().shader()
    assert shader.shade(0.0)[1:4] == (255, 255, 255)
    assert shader.shade(1.0)[1:4] == (203, 24, 29)
