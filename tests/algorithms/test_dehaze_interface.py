"""What users, scripts and models rely on in kestrel:dehazedarkchannel: parameters, outputs, help, style."""

import xml.etree.ElementTree as ElementTree

import pytest
from kestrel.tests.support.algorithm_tools import ROOT
from qgis.core import QgsProcessingParameterDefinition

PARAMETERS = [
    ("INPUT", None),
    ("BANDS", None),
    ("OTHER_BANDS", "copy"),
    ("STRETCH_MIN", None),
    ("STRETCH_MAX", None),
    ("EXTENT", None),
    ("AOI", None),
    ("PATCH", 15),
    ("OMEGA", 0.95),
    ("STRENGTH", 1.0),
    ("TILE", 512),
    ("OVERLAP", 0),
    ("COG", False),
    ("REFERENCE", None),
    ("OUTPUT", None),
    ("OUTPUT_HAZE", None),
    ("REPORT", None),
]
OPTIONAL = {
    "BANDS",
    "STRETCH_MIN",
    "STRETCH_MAX",
    "EXTENT",
    "AOI",
    "REFERENCE",
    "OUTPUT_HAZE",
    "REPORT",
}
ADVANCED = {"STRETCH_MIN", "STRETCH_MAX", "PATCH", "OMEGA", "TILE", "OVERLAP", "COG", "REFERENCE"}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("dehazedarkchannel")


def test_feature_parameters_and_defaults_are_the_fixed_ones(algorithm):
    assert [(p.name(), p.defaultValue()) for p in algorithm.parameterDefinitions()] == PARAMETERS


def test_feature_flags_fold_away_what_is_rare(algorithm):
    flags = QgsProcessingParameterDefinition.Flag
    for parameter in algorithm.parameterDefinitions():
        assert bool(parameter.flags() & flags.FlagAdvanced) == (parameter.name() in ADVANCED), (
            parameter.name()
        )
        assert bool(parameter.flags() & flags.FlagOptional) == (parameter.name() in OPTIONAL), (
            parameter.name()
        )


def test_feature_outputs_are_declared_and_optional_ones_not_made_unasked(algorithm):
    assert [o.name() for o in algorithm.outputDefinitions()] == ["OUTPUT", "OUTPUT_HAZE", "REPORT"]
    assert algorithm.parameterDefinition("OUTPUT").createByDefault()
    assert not algorithm.parameterDefinition("OUTPUT_HAZE").createByDefault()
    assert not algorithm.parameterDefinition("REPORT").createByDefault()


def test_feature_bands_are_several_of_the_input(algorithm):
    bands = algorithm.parameterDefinition("BANDS")
    assert bands.allowMultiple()
    assert bands.parentLayerParameterName() == "INPUT"
    others = algorithm.parameterDefinition("OTHER_BANDS")
    assert others.usesStaticStrings()
    assert others.options() == ["copy", "drop"]


def test_feature_name_group_icon_and_page(algorithm):
    assert algorithm.id() == "kestrel:dehazedarkchannel"
    assert (algorithm.group(), algorithm.groupId()) == ("Restoration", "restoration")
    assert not algorithm.icon().isNull()
    assert algorithm.svgIconPath().endswith("dehaze.svg")
    assert algorithm.helpUrl().endswith("docs/algorithms/dehazedarkchannel.md")
    assert {"haze", "dehazing", "dark channel"} <= set(algorithm.tags())


def test_feature_help_is_well_formed_and_tells_limits_and_papers(algorithm):
    text = algorithm.shortHelpString()
    assert ElementTree.fromstring(f"<help>{text}</help>") is not None
    for parameter in algorithm.parameterDefinitions():
        assert len(parameter.help()) > 15, parameter.name()
        assert parameter.description() in text
    for words in (
        "not reflectance and must not be used for indices",
        "indices across dehazed and copied bands are not comparable",
        "not recoverable",
        "Single Image Haze Removal Using Dark Channel Prior. CVPR 2009",
        "Guided Image Filtering",
    ):
        assert words in text


@pytest.mark.parametrize("name", ["colour.qml", "haze.qml"])
def test_feature_style_templates_are_xml(name):
    text = (ROOT / "resources" / "styles" / name).read_text(encoding="utf-8")
    assert ElementTree.fromstring(text[text.index("<qgis") :]).find("pipe/rasterrenderer") is not None


def test_feature_provider_offers_the_formats_it_writes(provider):
    assert provider.defaultRasterFileExtension() == "tif"
