"""The Task alone, then in the engine: one tile is the network itself, many tiles show no seam."""

import dataclasses
import functools

import numpy as np
import pytest
import rasterio
import torch
from kestrel.models import registry
from kestrel.models.dehazing.task import NOT_REFLECTANCE, build_network, predict, restore
from kestrel.models.manifest import read_manifest
from kestrel.models.task import ModelError, SceneInfo, Tiles
from kestrel.models.weights import load_weights, save_weights
from kestrel.tests.support import dehazing_weights as tools
from kestrel.tests.support import raster_toys, rasters
from kestrel.tests.support.jobs import Recorder

SCENE = SceneInfo(1000, 800, "uint8", (30.0, 30.0))
TILE, OVERLAP = 64, 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tools.write_dehazing_weights(tmp_path_factory.mktemp("weights") / "haze.safetensors")


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "identity.safetensors"
    return tools.write_dehazing_weights(path, identity=True)[0]


def build(path, device="cpu", scene=SCENE, **params):
    return registry.builder("dehazing")(params, str(path), device, scene)


def tiles(side=64, count=2, seed=0):
    images = np.random.default_rng(seed).random((count, 3, side, side), dtype=np.float32)
    place = np.zeros(count, int)
    return Tiles({"image": images}, np.ones((count, side, side), bool), None, place, place)


def run(path, image, tmp_path, name="out.tif", **fields):
    """Dehaze a raster with the weights at ``path``; return the outcome and the pixels."""
    builder = functools.partial(_builder, str(path))
    source = rasters.write(tmp_path / f"in_{name}", image)
    return raster_toys.run(source, tmp_path / name, builder, **fields)


def _builder(path, params, _, device, scene):
    return registry.builder("dehazing")(params, path, device, scene)


def smooth(height, width):
    """Slow waves of three colours, 60 to 195."""
    y, x = np.mgrid[:height, :width] / 80
    waves = np.stack([np.sin(x + y / 2), np.cos(x / 2 - y), np.sin((x + y) / 3 + 1)])
    return np.rint(127.5 + 67 * waves).astype(np.uint8)


# --- the task alone


def test_smoke_declares_what_the_specification_says(weights):
    path, sha256, _ = weights
    task = build(path)
    assert (task.kind, task.change, task.factor) == ("raster", True, 1)
    assert (task.tile, task.multiple, task.margin, task.shrinkable) == (64, 8, 0, False)
    assert task.overlap(512) == 64
    assert len(task.outputs) == 3
    (image,) = task.inputs
    assert (image.role, image.bands, image.gsd) == ("image", 3, (0.1, 100.0))
    assert (image.fill, image.pad) == ("nearest", "reflect")
    assert (image.scale.mode, image.scale.percentiles) == ("auto", (2.0, 98.0))
    assert task.model_id == f"dehazing_random@{sha256[:12]}"
    assert task.notes["sha256"] == sha256
    assert NOT_REFLECTANCE in task.notes["warnings"]
    assert any("preliminary" in text for text in task.notes["warnings"])


def test_feature_a_stretch_may_be_given(weights):
    scale = build(weights[0], stretch_min="0", stretch_max="1000,2000,3000").inputs[0].scale
    assert (scale.mode, scale.lows, scale.highs) == ("given", (0.0,), (1000.0, 2000.0, 3000.0))


@torch.no_grad()
def test_feature_the_answer_is_the_networks_between_0_and_1(weights):
    path, _, net = weights
    task, batch = build(path), tiles()
    found = np.stack(task.predict(task.prepare(batch)))
    assert found.dtype == np.float32
    hazy = 2 * torch.from_numpy(batch.images["image"]) - 1
    expected = (net(hazy).clamp(-1, 1) + 1) / 2
    assert expected.min() == 0  # the random network goes beyond the range, so that clamping shows
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_feature_batch_does_not_change_the_answer(weights):
    task, batch = build(weights[0]), tiles(count=3)
    together = task.predict(task.prepare(batch))
    for i, answer in enumerate(together):
        one = dataclasses.replace(
            batch,
            images={"image": batch.images["image"][i : i + 1]},
            valid=batch.valid[:1],
            rows=batch.rows[:1],
            cols=batch.cols[:1],
        )
        np.testing.assert_allclose(task.predict(task.prepare(one))[0], answer, atol=1e-5)


def test_feature_the_tile_stays_as_it_came(weights):
    task, batch = build(weights[0]), tiles()
    before = batch.images["image"].copy()
    task.predict(task.prepare(batch))
    assert np.array_equal(batch.images["image"], before)


def test_feature_nothing_changes_where_the_network_changes_nothing(identity):
    task, batch = build(identity), tiles()
    assert np.array_equal(np.stack(task.predict(task.prepare(batch))), batch.images["image"])


def test_feature_another_tile_than_the_cards_warns(weights):
    assert not any("tiles of" in text for text in build(weights[0], tile=64).notes["warnings"])
    (warning,) = (t for t in build(weights[0], tile=128).notes["warnings"] if "tiles of" in t)
    assert "64 pixels, not 128" in warning


@pytest.mark.parametrize(
    ("tile", "message"),
    [(100, "TILE is 100, it must be a multiple of 8"), (1032, "from 64 to 1024"), (32, "from 64 to 1024")],
)
def test_exception_tiles_that_the_network_cannot_take(weights, tile, message):
    with pytest.raises(ModelError, match=message):
        build(weights[0], tile=tile)


def test_exception_a_raster_under_64_pixels(weights):
    with pytest.raises(ModelError, match="63 x 500 pixels"):
        build(weights[0], scene=SceneInfo(63, 500, "uint8", None))


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({}, None, "no network settings"),
        ({"bands": 1}, {}, "wants 1 bands"),
        ({"tile": 100}, {}, "tiles of 100 pixels"),
        ({"tile": 2048}, {}, "tiles of 2048 pixels"),
        ({}, {"widths": [10**6] * 5}, "widths [1000000"),
        ({}, {"depths": [1, 1, 10**9, 1, 1]}, "depths [1, 1, 1000000000"),
        ({}, {"depths": "deep"}, "depths deep"),
        ({}, {"fam_layers": True}, "fam_layers True"),
        ({}, {"widths": [4, 8, 8, 8, 8]}, "cannot be built: widths are"),
        ({}, {"colour": 1}, "cannot be built"),
        ({}, {"use_fam": False}, "does not fit the network"),
        ({}, {"widths": [8, 8, 8, 8, 8]}, "does not fit|wants"),
    ],
)
def test_exception_card_and_network_disagree(tmp_path, weights, changes, config, message):
    path, _, net = weights
    extra = {} if config is None else {"config": {**net.config, **config}}
    bad = tmp_path / "bad.safetensors"
    save_weights(bad, load_weights(path, None).tensors, tools.card(extra=extra, **changes))
    with pytest.raises(ModelError) as error:
        build(bad)
    assert any(part in error.value.message for part in message.split("|"))


def test_exception_weights_of_another_model(tmp_path):
    from kestrel.tests.support import ship_weights

    ships = ship_weights.write_ship_weights(tmp_path / "ships.safetensors")[0]
    with pytest.raises(ModelError) as error:
        build(ships)
    assert "ships.safetensors" in error.value.message
    assert error.value.hint == "Choose weights made for dehazing."


@pytest.mark.parametrize("config", [{}, {"use_fam": False, "down": "dm", "up": "idwt"}, {"use_mab": False}])
def test_save_load_by_the_card(tmp_path, config):
    path, _, net = tools.write_dehazing_weights(tmp_path / "w.safetensors", **config)
    loaded = build_network(load_weights(path, None))
    assert loaded.config == net.config
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


# --- in the engine


def untiled(net, image):
    """The network on a whole uint8 picture, rounded to it."""
    unit = torch.from_numpy(image.astype(np.float32) / 255)[None]
    return np.clip(np.rint(255 * restore(unit, net)[0].numpy()), 0, 255)


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (200, 136)])
def test_oracle_one_tile_is_the_network_untiled(tmp_path, weights, size):
    path, _, net = weights
    image = np.random.default_rng(1).integers(0, 256, (3, *size), dtype=np.uint8)
    _, out = run(path, image, tmp_path, tile=200)
    expected = untiled(net, image)
    assert np.abs(out.astype(int) - image).mean() > 5  # the network does something
    assert np.abs(out - expected).max() <= 1


def test_oracle_a_raster_of_odd_sides_is_padded_by_reflection(tmp_path, weights):
    path, _, net = weights
    image = np.random.default_rng(2).integers(0, 256, (3, 70, 81), dtype=np.uint8)
    _, out = run(path, image, tmp_path, tile=128)
    padded = np.pad(image, ((0, 0), (0, 2), (0, 7)), mode="reflect")
    assert out.shape == image.shape
    assert np.abs(out - untiled(net, padded)[:, :70, :81]).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_oracle_a_network_that_changes_nothing_gives_the_raster_back(tmp_path, identity, dtype):
    rng = np.random.default_rng(3)
    image = rng.normal(1000, 200, (4, 150, 131)).astype(dtype)
    _, out = run(identity, image, tmp_path, tile=TILE, overlap=OVERLAP, bands=[3, 2, 1])
    assert out.dtype == image.dtype
    assert np.array_equal(out, image)


def seam_step(image, edges, axis):
    """Mean |second difference| across a seam, in DN: a jump shows, a slope does not; the worst seam's."""
    bands = np.moveaxis(image.astype(float), axis, -1)
    bends = np.abs(bands[..., 2:] - 2 * bands[..., 1:-1] + bands[..., :-2])
    return max(bends[..., edge - 2].mean() for edge in edges)


def seams(size, tile, overlap):
    starts = [*range(0, size - tile, tile - overlap), size - tile]
    return sorted({edge for start in starts for edge in (start, start + tile) if 2 <= edge < size})


class Tone(torch.nn.Module):
    """What tiles can differ by at most: the answer is the tile and a quarter of its mean."""

    def forward(self, x):
        return x + 0.25 * x.mean(dim=(2, 3), keepdim=True)


def test_oracle_no_seam_where_tones_differ_between_tiles(tmp_path, weights):
    image = smooth(200, 232)

    def make(*asked):
        task = registry.builder("dehazing")(asked[0], str(weights[0]), *asked[2:])
        return dataclasses.replace(task, predict=functools.partial(predict, net=Tone()), survey=None)

    source = rasters.write(tmp_path / "in.tif", image)
    outcome, out = raster_toys.run(source, tmp_path / "out.tif", make, tile=TILE, overlap=OVERLAP)
    assert outcome.figures["tiles_run"] == 42
    # side by side instead of blended, the same tiles show their edges
    unit = 2 * torch.from_numpy(image[None] / np.float32(255)) - 1
    cut = torch.cat([Tone()(unit[..., row : row + TILE, :TILE]) for row in (0, TILE)], dim=2)
    cut = 127.5 * cut[0].numpy()
    assert seam_step(cut, [64], 1) > 3
    for axis, size in ((1, 200), (2, 232)):
        edges = seams(size, TILE, OVERLAP)
        assert seam_step(out, edges, axis) - seam_step(image, edges, axis) < 1


@pytest.mark.slow
def test_oracle_no_seam_by_the_shipped_weights(tmp_path):
    if registry.entry("dehazing").weights not in read_manifest():
        pytest.skip("no dehazing weights are shipped yet")
    image = smooth(700, 800)
    source = rasters.write(tmp_path / "in.tif", image)
    outcome, out = raster_toys.run(source, tmp_path / "out.tif", registry.builder("dehazing"))
    tile, overlap = (outcome.figures["params_used"][name] for name in ("tile", "overlap"))
    for axis, size in ((1, 700), (2, 800)):
        edges = seams(size, tile, overlap)
        assert seam_step(out, edges, axis) - seam_step(image, edges, axis) < 1


def test_feature_nodata_is_kept_and_its_number_does_not_matter(tmp_path, weights):
    image = smooth(96, 96)
    image[image == 0] = 1
    outputs = []
    for value in (0, 255):
        holed = image.copy()
        holed[:, 40:60, 30:50] = value
        source = rasters.write(tmp_path / f"hole{value}.tif", holed, nodata=value)
        builder = functools.partial(_builder, str(weights[0]))
        outputs.append(raster_toys.run(source, tmp_path / f"o{value}.tif", builder, tile=96)[1])
        with rasterio.open(tmp_path / f"o{value}.tif") as dataset:
            assert dataset.nodata == value
        assert (outputs[-1][:, 40:60, 30:50] == value).all()
    valid = np.ones((96, 96), bool)
    valid[40:60, 30:50] = False
    # a result equal to nodata moves to its neighbour, by 1
    assert np.abs(outputs[0][:, valid].astype(int) - outputs[1][:, valid]).max() <= 1


def test_feature_the_user_is_told(tmp_path, weights):
    events = Recorder()
    outcome, _ = run(weights[0], smooth(100, 100), tmp_path, tile=96, overlap=OVERLAP, events=events)
    assert NOT_REFLECTANCE in outcome.warnings
    assert any("measured with tiles of 64" in text for text in outcome.warnings)
    assert outcome.figures["model"]["id"].startswith("dehazing_random@")


@pytest.mark.parametrize(("share", "warned"), [(0.0, False), (0.25, True)])
def test_feature_the_user_is_told_of_what_is_lost(tmp_path, weights, share, warned):
    image = np.random.default_rng(4).integers(100, 256, (3, 256, 256), dtype=np.uint8)
    image[:, : round(256 * share)] = 240
    outcome, _ = run(weights[0], image, tmp_path, tile=256)
    told = [text for text in outcome.warnings if "nothing can be brought back" in text]
    assert len(told) == warned
    assert all("25 %" in text for text in told)
