"""What a card says of a training, and that a file written by it is read back as it was."""

import pytest
import torch
from kestrel.models.building_change.network import PRESETS, SSANet
from kestrel.models.building_change.task import build
from kestrel.models.building_change.weights import describe, preset_of, read_start, write_weights
from kestrel.models.task import ModelError, SceneInfo
from kestrel.tests.support import building_change_weights as tools

TRAINING = {
    "config": {"seed": 3, "lr": 1e-3, "network": {}},
    "data": {"batch": 8, "crop": 128},
    "mean": tools.MEAN,
    "std": tools.STD,
    "step": 10,
    "seconds": 12.6,
    "start": "",
    "best": None,
}


def card(net, **changes):
    fields = {"name": "x", "data": [], "training": TRAINING, "threshold": 0.4, "command": "c", "limits": "l"}
    return describe(net, **{**fields, **changes})


def test_save_load_a_described_network(tmp_path):
    net, path = tools.random_network(), tmp_path / "x.safetensors"
    sha256 = write_weights(path, net, card(net, gsd=(5.0, 20.0)))
    start = read_start(str(path))
    assert start.source == f"x@{sha256[:12]}"
    assert start.network == net.config
    assert tuple(start.gsd) == (5, 20)
    assert tuple(map(list, start.normal)) == (tools.MEAN, tools.STD)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(start.tensors[name], tensor, atol=1e-3, rtol=1e-3)
    task = build({}, str(path), "cpu", SceneInfo(300, 300, "uint8", None))
    assert (task.tile, task.notes["threshold"]) == (256, 0.4)


def test_feature_what_the_card_counts():
    found = card(tools.random_network())
    assert found.extra["crops_seen"] == 80
    assert (found.seed, found.classes, found.preset) == (3, ("change",), "custom")
    assert found.parameters == sum(p.numel() for p in SSANet(**tools.THIN).parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_feature_presets_are_recognised(name):
    with torch.device("meta"):
        assert preset_of(SSANet(**PRESETS[name]).config) == name


def test_exception_a_state_that_is_no_trainings():
    with pytest.raises(ModelError, match="lacks 'mean'"):
        card(tools.random_network(), training={k: v for k, v in TRAINING.items() if k != "mean"})
