"""What users, scripts and models rely on: ids, parameters, defaults, outputs, help."""

import xml.etree.ElementTree as ElementTree

import pytest
from kestrel.tests.support.algorithm_tools import NAMES, ROOT
from qgis.core import QgsProcessing, QgsProcessingParameterDefinition

SHARED_FIRST = [
    ("INPUT", None),
    ("BAND", 1),
    ("SCALE_MODE", "auto"),
    ("SCALE_MIN", -25.0),
    ("SCALE_MAX", 5.0),
    ("EXTENT", None),
    ("AOI", None),
    ("LAND_MASK", None),
    ("LAND_BUFFER", 0.0),
]
PARAMETERS = {
    "detectships": [
        *SHARED_FIRST,
        ("WEIGHTS", None),
        ("CONFIDENCE", 0.25),
        ("NMS_IOU", 0.45),
        ("TILE", 640),
        ("OVERLAP", 0),
        ("MIN_LENGTH", 0.0),
        ("MAX_LENGTH", 0.0),
        ("BATCH", 0),
        ("DEVICE", "auto"),
        ("OUTPUT", None),
        ("REPORT", None),
    ],
    "detectshipscfar": [
        *SHARED_FIRST,
        ("PFA", 1e-6),
        ("GUARD", 300.0),
        ("BACKGROUND", 600.0),
        ("MIN_LENGTH", 0.0),
        ("MAX_LENGTH", 0.0),
        ("OUTPUT", None),
        ("REPORT", None),
    ],
    "installruntime": [
        ("PYTHON", None),
        ("PYTHON_ARCHIVE", None),
        ("ARCHIVE_SHA256", None),
        ("ACCELERATOR", "auto"),
        ("WHEELS", None),
        ("REBUILD", False),
    ],
    "installweights": [("PACK", None), ("SHA256", None)],
    "runtimestatus": [("REPORT", None)],
}
OUTPUTS = {
    "detectships": {"OUTPUT", "REPORT", "COUNT"},
    "detectshipscfar": {"OUTPUT", "REPORT", "COUNT"},
    "installruntime": {"FOLDER", "VERSIONS", "DEVICE"},
    "installweights": {"FOLDER", "VERSIONS"},
    "runtimestatus": {"REPORT", "FOLDER", "VERSIONS", "DEVICE"},
}
SETUP = {"installruntime", "installweights", "runtimestatus"}
ADVANCED = {"SCALE_MIN", "SCALE_MAX", "WEIGHTS", "NMS_IOU", "TILE", "OVERLAP", "BATCH", "DEVICE"}
ADVANCED |= {"PYTHON", "PYTHON_ARCHIVE", "ARCHIVE_SHA256", "WHEELS", "REBUILD"}
REQUIRED = {
    "INPUT",
    "BAND",
    "SCALE_MODE",
    "SCALE_MIN",
    "SCALE_MAX",
    "LAND_BUFFER",
    "CONFIDENCE",
    "NMS_IOU",
    "TILE",
    "OVERLAP",
    "MIN_LENGTH",
    "MAX_LENGTH",
    "BATCH",
    "DEVICE",
    "PFA",
    "GUARD",
    "BACKGROUND",
    "OUTPUT",
    "ACCELERATOR",
    "REBUILD",
    "PACK",
}


@pytest.fixture(params=sorted(PARAMETERS))
def algorithm(request, provider):
    return provider.algorithm(request.param)


def test_parameters_and_defaults_are_the_fixed_ones(algorithm):
    found = [(p.name(), p.defaultValue()) for p in algorithm.parameterDefinitions()]
    assert found == PARAMETERS[algorithm.name()]


def test_outputs_are_declared(algorithm):
    assert {output.name() for output in algorithm.outputDefinitions()} == OUTPUTS[algorithm.name()]


def test_flags_fold_away_what_is_rare(algorithm):
    flags = QgsProcessingParameterDefinition.Flag
    for parameter in algorithm.parameterDefinitions():
        assert bool(parameter.flags() & flags.FlagAdvanced) == (parameter.name() in ADVANCED)
        assert bool(parameter.flags() & flags.FlagOptional) == (parameter.name() not in REQUIRED)


def test_choices_are_static_strings(provider):
    algorithm = provider.algorithm("detectships")
    modes = algorithm.parameterDefinition("SCALE_MODE")
    assert modes.usesStaticStrings()
    assert modes.options() == ["auto", "uint8", "percentile", "db", "linear"]
    devices = algorithm.parameterDefinition("DEVICE")
    assert devices.usesStaticStrings()
    assert devices.options() == ["auto", "cpu", "cuda", "mps"]


def test_sink_takes_polygons(provider):
    sink = provider.algorithm("detectships").parameterDefinition("OUTPUT")
    assert sink.dataType() == QgsProcessing.SourceType.TypeVectorPolygon
    assert sink.supportsNonFileBasedOutput()


def test_report_is_not_made_unasked(algorithm):
    report = algorithm.parameterDefinition("REPORT")
    assert report is None or not report.createByDefault()


def test_names_and_groups(algorithm):
    assert algorithm.name().isalpha()
    assert algorithm.name().islower()
    assert algorithm.id() == f"kestrel:{algorithm.name()}"
    assert algorithm.groupId() == ("setup" if algorithm.name() in SETUP else "detection")
    assert len(algorithm.tags()) >= 5
    assert not algorithm.icon().isNull()
    assert algorithm.helpUrl().startswith("https://")
    assert algorithm.helpUrl().endswith(f"docs/algorithms/{algorithm.name()}.md")


def test_help_is_well_formed_and_names_every_parameter(algorithm):
    text = algorithm.shortHelpString()
    assert ElementTree.fromstring(f"<help>{text}</help>") is not None
    for parameter in algorithm.parameterDefinitions():
        assert len(parameter.help()) > 15, parameter.name()
        assert parameter.description() in text
    assert algorithm.shortDescription() in text


def test_help_of_the_network_tells_licence_limits_and_paper(provider):
    text = provider.algorithm("detectships").shortHelpString()
    for words in (
        "Licence of the weights",
        "Tang",
        "Wise IoU",
        "Limits",
        "0.5 to 10 m",
        "OpenSARShip",
        "GPL-3.0",
    ):
        assert words in text


def test_create_gives_an_independent_object(algorithm):
    copy = algorithm.create()
    assert copy is not algorithm
    assert [p.name() for p in copy.parameterDefinitions()] == [
        p.name() for p in algorithm.parameterDefinitions()
    ]


def test_band_may_be_left_out_and_its_copy_behaves_alike(provider):
    band = provider.algorithm("detectships").parameterDefinition("BAND")
    for parameter in (band, band.clone()):
        assert parameter.checkValueIsAcceptable(None)
        assert parameter.checkValueIsAcceptable(2)
        assert not parameter.checkValueIsAcceptable("two")
        assert parameter.parentLayerParameterName() == "INPUT"
        assert parameter.defaultValue() == 1
        assert parameter.help()


def test_can_execute_explains_a_missing_runtime(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("KESTREL_PYTHON", str(tmp_path / "none"))
    ok, message = provider.algorithm("detectships").canExecute()
    assert not ok
    assert "KESTREL_PYTHON" in message
    assert str(tmp_path / "none") in message
    assert provider.algorithm("runtimestatus").canExecute() == (True, "")


def test_fields_are_the_engines(provider):
    from kestrel.plugin.sink import sink_fields

    fields = sink_fields()
    assert [field.name() for field in fields] == NAMES
    assert all(field.alias() for field in fields)
    # the engine side, by its source: it cannot be imported beside QGIS's libraries
    source = (ROOT / "engine" / "features.py").read_text()
    table = source[source.index("FIELDS = {") : source.index("}", source.index("FIELDS = {"))]
    assert [line.split('"')[1] for line in table.splitlines() if '"' in line] == NAMES


def test_style_file_holds_the_aliases_of_the_fields(provider):
    from kestrel.plugin.fields import field_table

    tree = ElementTree.parse(ROOT / "resources" / "styles" / "ships.qml")
    aliases = {alias.get("field"): alias.get("name") for alias in tree.iter("alias")}
    assert aliases == {name: alias for name, _, alias in field_table()}
    renderer = tree.find("renderer-v2")
    assert renderer.get("attr") == "score"
    uppers = [float(entry.get("upper")) for entry in renderer.iter("range")]
    assert uppers == sorted(uppers)
    assert uppers[-1] == 1.0
    styles = {option.get("value") for option in renderer.iter("Option") if option.get("name") == "style"}
    assert styles == {"no"}


@pytest.mark.parametrize("path", sorted((ROOT / "algorithms").glob("*.py")), ids=lambda p: p.name)
def test_algorithms_never_touch_iface_or_the_project(path):
    text = path.read_text()
    assert "iface" not in text
    assert "QgsProject.instance" not in text
    assert "addMapLayer" not in text
