"""The Task alone, then in the engine: one tile is the network itself; bad cards are refused."""

import functools

import numpy as np
import pytest
import torch
from kestrel.models import registry
from kestrel.models.building_change.task import MEANING, build_network
from kestrel.models.task import ModelError, SceneInfo, Tiles
from kestrel.models.weights import load_weights, save_weights
from kestrel.tests.support import building_change_weights as tools
from kestrel.tests.support import pair_toys, rasters

SCENE = SceneInfo(1000, 800, "uint8", (0.5, 0.5))
#: Float32: one unit of rounding in the input moves the random network's answer by 2.8e-4, the other memory
#: layout by 1.1e-4; its answers differ by 0.1 between pixels.
ATOL = 1e-3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tools.write_building_change_weights(tmp_path_factory.mktemp("weights") / "change.safetensors")


def build(path, **params):
    return registry.builder("building_change")(params, str(path), "cpu", SCENE)


def _builder(path, params, _, device, scene):
    return registry.builder("building_change")(params, path, device, scene)


@torch.no_grad()
def expected(net, before, after):
    """The network on (B, 3, H, W) in 0..1, written out."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tools.MEAN, tools.STD))
    dates = [(torch.from_numpy(np.asarray(d, np.float32)) - mean) / std for d in (before, after)]
    return torch.sigmoid(net(*dates)).numpy()


def tiles(count=2, side=64, seed=0):
    rng = np.random.default_rng(seed)
    images = {role: rng.random((count, 3, side, side), dtype=np.float32) for role in ("before", "after")}
    return Tiles(images, np.ones((count, side, side), bool), None, np.zeros(count, int), np.zeros(count, int))


def test_smoke_declares_what_the_specification_says(weights):
    path, sha256, _ = weights
    task = build(path)
    assert (task.kind, task.outputs, task.pair, task.change) == ("scores", ("change",), True, False)
    assert (task.tile, task.multiple, task.margin, task.shrinkable) == (64, 16, 0, False)
    assert (task.overlap(256), task.smallest) == (64, 256)
    assert [(i.role, i.bands, i.fill, i.pad) for i in task.inputs] == [
        ("before", 3, "other", "reflect"),
        ("after", 3, "other", "reflect"),
    ]
    assert task.inputs[0].scale == task.inputs[1].scale
    assert task.model_id == f"building_change_random@{sha256[:12]}"
    assert task.notes["threshold"] == 0.3
    assert task.notes["min_area"] == 50
    assert MEANING in task.notes["warnings"]
    assert any("preliminary" in text for text in task.notes["warnings"])


@pytest.mark.parametrize(
    ("learned", "typed", "told"),
    [
        ([[0, 255]] * 3, {}, False),
        ([[0, 255]] * 3, {"stretch_min": [0.0], "stretch_max": [3000.0]}, False),
        ([[0, 3000]] * 3, {"stretch_min": [0.0], "stretch_max": [3000.0]}, False),
        ([[0, 3000]] * 3, {}, True),
        ([[1.5, 10], [2, 20], [3, 30]], {"stretch_min": [1.5, 2, 3], "stretch_max": [10, 20, 31]}, True),
        ("no stretch", {}, False),
    ],
)
def test_feature_the_stretch_that_weights_learned_with_is_told(tmp_path, learned, typed, told):
    net = tools.random_network()
    path = tmp_path / "own.safetensors"
    card = tools.card(extra=tools.extra(net, stretch=learned))
    save_weights(path, net.state_dict(), card, dict(net.named_buffers()))
    found = [text for text in build(path, **typed).notes["warnings"] if "STRETCH_MIN" in text]
    assert len(found) == told
    if told:
        assert f"STRETCH_MIN={','.join(f'{low:g}' for low, _ in learned)} and STRETCH_MAX=" in found[0]


def test_feature_the_answer_is_the_networks_probability(weights):
    path, _, net = weights
    task, batch = build(path), tiles()
    found = np.stack(task.predict(task.prepare(batch)))
    assert (found.dtype, found.shape) == (np.float32, (2, 1, 64, 64))
    alone = expected(net, *batch.images.values())
    assert alone.std() > 0.01  # the network does something
    np.testing.assert_allclose(found, alone, atol=ATOL)


def test_feature_the_card_names_the_mapping_unit(tmp_path, weights):
    path, _, net = weights
    own = tmp_path / "city.safetensors"
    extra = tools.extra(net, min_area_m2=400)
    save_weights(own, load_weights(path, None).tensors, tools.card(extra=extra))
    assert build(own).notes["min_area"] == 400


def test_feature_another_tile_than_the_cards_warns(weights):
    assert not any("tiles of" in text for text in build(weights[0], tile=64).notes["warnings"])
    (warning,) = (t for t in build(weights[0], tile=128).notes["warnings"] if "tiles of" in t)
    assert "64 pixels, not 128" in warning


@pytest.mark.parametrize(
    ("tile", "message"),
    [(100, "TILE is 100, it must be a multiple of 16"), (1040, "from 32 to 1024"), (16, "from 32 to 1024")],
)
def test_exception_tiles_that_the_network_cannot_take(weights, tile, message):
    with pytest.raises(ModelError, match=message):
        build(weights[0], tile=tile)


@pytest.mark.parametrize(
    ("changes", "config", "more", "message"),
    [
        ({}, None, {}, "no network settings"),
        ({"bands": 1}, {}, {}, "wants 1 bands"),
        ({}, {"in_channels": 6}, {}, "wants 6 bands"),
        ({"tile": 100}, {}, {}, "tiles of 100 pixels"),
        ({}, {"width": 10**9}, {}, "width 1000000000"),
        ({}, {"width": True}, {}, "width True"),
        ({}, {"ssif_at": "sky"}, {}, "cannot be built"),
        ({}, {"colour": 1}, {}, "cannot be built"),
        ({}, {"use_csh": False}, {}, "does not fit the network"),
        ({}, {"width": 8}, {}, "does not fit the network"),
        ({}, {}, {"mean": None}, "does not say the mean"),
        ({}, {}, {"std": [0.1, 0.1]}, "does not say the std"),
        ({}, {}, {"std": [0.1, 0.0, 0.1]}, "must be above 0"),
        ({}, {}, {"threshold": 1}, "must lie between 0 and 1"),
        ({}, {}, {"min_area_m2": -1}, "must be 0 or more"),
    ],
)
def test_exception_card_and_network_disagree(tmp_path, weights, changes, config, more, message):
    path, _, net = weights
    extra = tools.extra(net, **more)
    extra["config"] = None if config is None else {**net.config, **config}
    bad = tmp_path / "bad.safetensors"
    save_weights(bad, load_weights(path, None).tensors, tools.card(extra=extra, **changes))
    with pytest.raises(ModelError) as error:
        build(bad)
    assert message in error.value.message


@pytest.mark.parametrize("config", [{}, {"use_ssif": False}, {"use_csh": False}])
def test_save_load_by_the_card(tmp_path, config):
    path, _, net = tools.write_building_change_weights(tmp_path / "w.safetensors", **config)
    loaded = build_network(load_weights(path, None))
    assert loaded.config == net.config
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_oracle_one_tile_is_the_network_untiled(tmp_path, weights):
    path, _, net = weights
    dates = np.random.default_rng(1).integers(0, 256, (2, 3, 256, 256), dtype=np.uint8)
    sources = [rasters.write(tmp_path / f"{i}.tif", date) for i, date in enumerate(dates)]
    builder = functools.partial(_builder, str(path))
    _, out = pair_toys.run(*sources, tmp_path / "out.tif", builder, tile=256)
    alone = expected(net, *(date[None] / 255 for date in dates))[0]
    assert alone.std() > 0.01  # the network does something
    np.testing.assert_allclose(out, alone, atol=ATOL)
