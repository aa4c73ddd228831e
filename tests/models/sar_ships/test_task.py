import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kestrel.models import registry
from kestrel.models.sar_ships import task as task_module
from kestrel.models.sar_ships.task import build_network, overlap_px
from kestrel.models.task import ModelError, SceneInfo, Tiles
from kestrel.models.weights import load_weights, save_weights
from kestrel.tests.support import ship_weights as tools

SCENE = SceneInfo(1000, 800, "uint8", (10.0, 10.0))


@pytest.fixture(scope="module")
def ships(tmp_path_factory):
    return tools.write_ship_weights(tmp_path_factory.mktemp("weights") / "ships.safetensors")


def build(path, device="cpu", scene=SCENE, **params):
    return registry.builder("sar_ships")(params, str(path), device, scene)


def tiles(side=128, count=2, seed=0):
    images = np.random.default_rng(seed).random((count, 1, side, side), dtype=np.float32)
    place = np.zeros(count, int)
    return Tiles({"image": images}, np.ones((count, side, side), bool), None, place, place)


def test_smoke_declares_what_the_specification_says(ships):
    path, sha256, _ = ships
    task = build(path, scale_mode="db", scale_min=-30, scale_max=0)
    assert (task.kind, task.tile, task.multiple, task.margin, task.shrinkable) == ("boxes", 640, 64, 0, False)
    assert task.outputs == ("ship",)
    image = task.inputs[0]
    assert (image.role, image.bands, image.gsd, image.fill) == ("image", 1, (0.5, 20.0), "median")
    assert image.pad == pytest.approx(114 / 255)
    assert (image.scale.mode, image.scale.minimum, image.scale.maximum) == ("db", -30, 0)
    assert image.scale.to == "unit"
    assert task.model_id == f"sar_ships_random@{sha256[:12]}"
    assert task.notes["sha256"] == sha256
    assert "preliminary" in task.notes["warnings"][0]


def test_feature_boxes_are_the_networks_own(ships):
    path, _, net = ships
    confidence = 0.012
    batch = tiles()
    found = build(path, confidence=confidence).predict(build(path).prepare(batch))
    net.load_state_dict({k: v.float() for k, v in load_weights(path, None).tensors.items()})
    with torch.no_grad():
        candidates = net.eval().candidates(net(torch.from_numpy(batch.images["image"]).repeat(1, 3, 1, 1)))
    for boxes, every in zip(found, candidates.numpy(), strict=True):
        kept = every[every[:, 4] >= confidence]
        assert 0 < len(kept) < len(every)
        assert boxes.shape == (len(kept), 6)
        assert boxes.dtype == np.float32
        corners = np.concatenate((kept[:, :2] - kept[:, 2:4] / 2, kept[:, :2] + kept[:, 2:4] / 2), axis=1)
        expected = np.concatenate((corners.clip(0, 128), kept[:, 4:5]), axis=1)
        order = np.lexsort(expected.round(2).T)
        ours = np.lexsort(boxes[:, :5].round(2).T)
        # the batch normalisation folded into the convolutions rounds otherwise
        np.testing.assert_allclose(boxes[ours, :5], expected[order], atol=0.02)
        assert np.all(np.diff(boxes[:, 4]) <= 0)
        assert np.all(boxes[:, 5] == 0)


def test_feature_batch_does_not_change_the_boxes(ships):
    task = build(ships[0], confidence=0.012)
    batch = tiles(count=3)
    together = task.predict(task.prepare(batch))
    for i, boxes in enumerate(together):
        images = {"image": batch.images["image"][i : i + 1]}
        one = dataclasses.replace(
            batch, images=images, valid=batch.valid[:1], rows=batch.rows[:1], cols=batch.cols[:1]
        )
        np.testing.assert_allclose(task.predict(task.prepare(one))[0], boxes, atol=1e-3)


def test_feature_confidence_one_and_zero(ships):
    batch = tiles(count=1)
    none = build(ships[0], confidence=1)
    assert none.predict(none.prepare(batch))[0].shape == (0, 6)
    every = build(ships[0], confidence=0)
    assert len(every.predict(every.prepare(batch))[0]) == round(
        task_module.MAX_CANDIDATES * 128**2 / task_module.TILE**2
    )


def test_feature_more_classes_multiply_into_the_score(tmp_path):
    path, _, net = tools.write_ship_weights(tmp_path / "two.safetensors", nc=2)
    card = tools.card(classes=("cargo", "tanker"), extra={"config": net.config})
    save_weights(path, net.state_dict(), card, dict(net.named_buffers()))
    task = build(path, confidence=0)
    boxes = task.predict(task.prepare(tiles(count=1)))[0]
    assert task.outputs == ("cargo", "tanker")
    assert set(np.unique(boxes[:, 5])) <= {0.0, 1.0}
    with torch.no_grad():
        raw = net(torch.from_numpy(tiles(count=1).images["image"]).repeat(1, 3, 1, 1))
    best = max(float((y[..., 4] * y[..., 5:].amax(-1)).max()) for y in (level.sigmoid() for level in raw))
    assert boxes[0, 4] == pytest.approx(best, rel=0.02)


@given(
    st.sampled_from([64, 128, 192, 640, 1024]),
    st.none() | st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)),
)
def test_property_overlap_is_400_m_within_limits(tile, pixel_m):
    overlap = overlap_px(tile, pixel_m)
    assert overlap <= tile // 2
    assert overlap >= min(128, tile // 2)
    if pixel_m and 128 < overlap < tile // 2:
        assert 0 <= overlap * min(pixel_m) - 400 < min(pixel_m) + 1e-6


def test_feature_overlap_of_the_issue():
    assert overlap_px(640, (10.0, 10.0)) == 128
    assert overlap_px(640, (2.0, 2.0)) == 200
    assert overlap_px(640, (0.5, 0.5)) == 320
    assert overlap_px(640, None) == 128


def test_exception_parameters(ships):
    with pytest.raises(ModelError, match=r"CONFIDENCE is 1\.5"):
        build(ships[0], confidence=1.5)
    with pytest.raises(ModelError, match="CONFIDENCE is 'high', it must be a number"):
        build(ships[0], confidence="high")
    with pytest.raises(ModelError, match="SCALE_MODE is 'sqrt'"):
        build(ships[0], scale_mode="sqrt")
    with pytest.raises(ModelError, match="Device 'abacus' is not available"):
        build(ships[0], device="abacus")


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"classes": ("ship", "buoy")}, {}, "names 2 classes (ship, buoy), but its network has 1"),
        ({"bands": 2}, {}, "wants 2 bands; ship detection reads one"),
        ({}, None, "is no ship detector: its card has no network settings"),
        ({}, {"width": 0.25}, "does not fit the network"),
        ({}, {"width": 1e6}, "asks for a network of width 1000000.0; at most 2"),
        ({}, {"depth": "deep"}, "asks for a network of depth deep"),
        ({}, {"head": "hydra"}, "describes a network that cannot be built: head is 'hydra'"),
        ({}, {"attention": "none"}, "which the network does not know"),
        ({}, {"colour": 1}, "describes a network that cannot be built"),
        ({}, {"anchors": [[1, 2]]}, "describes a network that cannot be built"),
        ({}, {"nc": 10**9}, "names 1 classes (ship), but its network has 1000000000"),
    ],
)
def test_exception_card_and_network_disagree(tmp_path, ships, changes, config, message):
    path, _, net = ships
    extra = {} if config is None else {"config": {**net.config, **config}}
    bad = tmp_path / "bad.safetensors"
    save_weights(bad, load_weights(path, None).tensors, tools.card(extra=extra, **changes))
    with pytest.raises(ModelError) as error:
        build(bad)
    assert message in error.value.message


@pytest.mark.parametrize("head", ["coupled", "decoupled", "context"])
def test_save_load_every_head(tmp_path, head):
    path, _, net = tools.write_ship_weights(tmp_path / "w.safetensors", head=head)
    loaded = build_network(load_weights(path, None))
    assert loaded.config == net.config
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
