"""What users, scripts and models rely on in kestrel:dehaze: parameters, outputs, help, weights."""

import json
import os
import xml.etree.ElementTree as ElementTree

import pytest
from kestrel.plugin import weight_files
from kestrel.tests.support.algorithm_tools import fake_weights
from qgis.core import QgsProcessingParameterDefinition

PARAMETERS = [
    ("INPUT", None),
    ("BANDS", None),
    ("OTHER_BANDS", "copy"),
    ("WEIGHTS", None),
    ("STRETCH_MIN", None),
    ("STRETCH_MAX", None),
    ("EXTENT", None),
    ("AOI", None),
    ("TILE", 512),
    ("OVERLAP", 64),
    ("STRENGTH", 1.0),
    ("BATCH", 0),
    ("DEVICE", "auto"),
    ("REFERENCE", None),
    ("OUTPUT", None),
    ("OUTPUT_HAZE", None),
    ("REPORT", None),
]
REQUIRED = {"INPUT", "OTHER_BANDS", "TILE", "OVERLAP", "STRENGTH", "BATCH", "DEVICE", "OUTPUT"}
ADVANCED = {"STRETCH_MIN", "STRETCH_MAX", "TILE", "OVERLAP", "BATCH", "DEVICE", "REFERENCE"}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("dehaze")


def test_feature_parameters_and_defaults_are_the_fixed_ones(algorithm):
    assert [(p.name(), p.defaultValue()) for p in algorithm.parameterDefinitions()] == PARAMETERS


def test_feature_flags_fold_away_what_is_rare(algorithm):
    flags = QgsProcessingParameterDefinition.Flag
    names = {
        flag: {p.name() for p in algorithm.parameterDefinitions() if p.flags() & flag}
        for flag in (flags.FlagAdvanced, flags.FlagOptional)
    }
    assert names[flags.FlagAdvanced] == ADVANCED
    assert names[flags.FlagOptional] == {name for name, _ in PARAMETERS} - REQUIRED


def test_feature_outputs_are_declared_and_optional_ones_not_made_unasked(algorithm):
    made = {name: algorithm.parameterDefinition(name).createByDefault() for name in ("OUTPUT_HAZE", "REPORT")}
    assert [o.name() for o in algorithm.outputDefinitions()] == ["OUTPUT", "OUTPUT_HAZE", "REPORT"]
    assert algorithm.parameterDefinition("OUTPUT").createByDefault()
    assert made == {"OUTPUT_HAZE": False, "REPORT": False}


def test_feature_name_group_icon_and_page(algorithm):
    assert algorithm.id() == "kestrel:dehaze"
    assert (algorithm.group(), algorithm.groupId()) == ("Restoration", "restoration")
    assert not algorithm.icon().pixmap(16, 16).isNull()
    assert os.path.basename(algorithm.svgIconPath()) == "dehaze_network.svg"
    assert algorithm.helpUrl().endswith("docs/algorithms/dehaze.md")
    assert {"haze", "dehazing", "wavelet", "thin cloud"} <= set(algorithm.tags())


def test_feature_help_is_well_formed_and_tells_limits_licence_and_paper(algorithm):
    text = algorithm.shortHelpString()
    assert ElementTree.fromstring(f"<help>{text}</help>") is not None
    for parameter in algorithm.parameterDefinitions():
        assert len(parameter.help()) > 15, parameter.name()
        assert parameter.description() in text
    for words in (
        "not reflectance and must not be used for indices",
        "not recoverable",
        "Licence of the weights",
        "Landsat 8",
        "RSSCN7",
        "shortwave infrared, near infrared, green",
        "98th percentile",
        "Guan, He, Wang, Zhou, Liu, Xiong: DWTMA-Net",
    ):
        assert words in text


@pytest.mark.parametrize("value", [None, "", "dehazing", "my weights v1.0", "/data/own.safetensors"])
def test_feature_weights_take_any_name_or_path(algorithm, value):
    assert algorithm.parameterDefinition("WEIGHTS").checkValueIsAcceptable(value)


def test_feature_default_tile_is_that_of_every_released_card(algorithm):
    for name in weight_files.offered("dehazing"):
        entry = weight_files.shipped()[name]
        assert weight_files.read_card(os.path.join(weight_files.FOLDER, entry["file"]))["tile"] == 512, name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of weights in place of the shipped one, with those that may and may not be offered."""
    monkeypatch.setattr(weight_files, "FOLDER", tmp_path)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    cards = {"limits": "for tests", "paper": "07: A paper"}
    entries = {
        "dehazing": ("a", "released"),
        "dehazing_paper": ("b", "released"),
        "dehazing_early": ("c", "preliminary"),
        "dehazing_pack": ("not_here", "released"),
        "sar_ships": ("d", "released"),
        "dehazingother": ("e", "released"),
    }
    for file in "abcde":
        fake_weights(tmp_path / f"{file}.safetensors")
    content = {
        name: {"file": f"{file}.safetensors", "status": status, "pack": "", "card": cards}
        for name, (file, status) in entries.items()
    }
    content["dehazing_damaged"] = "no entry"
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    return tmp_path


def test_feature_only_released_and_installed_weights_of_the_model_are_offered(folder):
    assert weight_files.offered("dehazing") == ["dehazing", "dehazing_paper"]
    assert weight_files.offered("sar_ships") == ["sar_ships"]


def test_feature_help_repeats_what_the_shipped_card_says(provider, folder):
    assert "Shipped weights: for tests" in provider.algorithm("dehaze").shortHelpString()
    (folder / "manifest.json").write_text('{"sar_ships": {}}')
    assert "No weights come with this version" in provider.algorithm("dehaze").shortHelpString()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 16,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (30).to_bytes(8, "little") + b'{"__metadata__":{"kestrel":1}}',
        (33).to_bytes(8, "little") + b'{"__metadata__":{"kestrel":"[1]"}}',
    ],
)
def test_exception_a_file_without_a_card_has_none(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert weight_files.read_card(str(tmp_path / "a.safetensors")) == {}
    assert weight_files.read_card(str(tmp_path / "none.safetensors")) == {}
