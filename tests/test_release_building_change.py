"""Packing, measuring and releasing building change on made-up pairs: format, split, verdict, what is told."""

import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from kestrel.models.building_change.data import Sampler, load_pairs, load_sites
from kestrel.models.building_change.metrics import confusion
from kestrel.models.building_change.trainer import (
    BEST,
    CHECKPOINT,
    Events,
    TrainConfig,
    load_best,
    save_best,
    train,
)
from kestrel.models.training.checkpoint import read_state
from kestrel.models.weights import load_weights
from kestrel.tests.support.building_change_weights import write_building_change_weights
from kestrel.tests.support.change_pairs import made_pairs

ROOT = Path(__file__).resolve().parents[1]


def script(path):
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pack():
    yield script(ROOT / "scripts" / "pack_building_change.py")
    del sys.modules["pack_building_change"]


@pytest.fixture(scope="module")
def bench():
    yield script(ROOT / "benchmarks" / "building_change_accuracy.py")
    del sys.modules["building_change_accuracy"]


@pytest.fixture(scope="module")
def release():
    yield script(ROOT / "scripts" / "release_building_change.py")
    del sys.modules["release_building_change"]


def save(path, image, driver="PNG"):
    """Write an 8-bit picture (C, H, W)."""
    count, height, width = image.shape
    with rasterio.open(
        path, "w", driver=driver, width=width, height=height, count=count, dtype="uint8"
    ) as file:
        file.write(image)


def save_levir(folder, image, corner, pair):
    folder.mkdir(exist_ok=True)
    stem = folder / f"levir_{image}_{corner}"
    for name, date in (("t1", pair.before[0]), ("t2", pair.after[0])):
        save(f"{stem}_{name}.jpg", date, "JPEG")
    save(f"{stem}_gt.png", pair.label.astype(np.uint8) * 255)


def packed(folder, size=64):
    """A pack of three parts with two pairs each, and one site."""
    folder.mkdir(parents=True)
    parts = [made_pairs(2, size, part, part) for part in range(3)]
    whole = {key: np.concatenate([getattr(p, key) for p in parts]) for key in vars(parts[0])}
    whole["image"] = np.arange(6)
    np.savez(folder / "levir.npz", **whole)
    site = made_pairs(1, 48, 7)
    found = {"before_0": site.before[0], "after_0": site.after[0], "label_0": site.label[0]}
    np.savez(folder / "sztaki.npz", site=np.array(["place"]), **found)
    return folder


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_packs_follow_the_format_and_keep_quadrants_of_an_image_together(pack, tmp_path):
    numbers = [36, 26, 27, 29, 30, 4, 26]
    for i, number in enumerate(numbers):
        save_levir(tmp_path / "levir", number, f"0_{i}", made_pairs(1, 32, i))
    pack.pack_levir(tmp_path / "levir", tmp_path / "levir.npz")
    pairs = load_pairs(tmp_path)
    assert pairs.image.tolist() == sorted(numbers)
    assert pairs.part.tolist() == [0, 0, 0, 1, 1, 2, 2]
    # a mask is no JPEG: not a pixel of it may change
    order = sorted(range(7), key=lambda i: (numbers[i], i))
    for label, i in zip(pairs.label, order, strict=True):
        assert (label == made_pairs(1, 32, i).label[0]).all()
    (tmp_path / "sites").mkdir()
    site = made_pairs(1, 40, 5)
    for name, image in (("t1", site.before[0]), ("t2", site.after[0]), ("gt", site.label * np.uint8(255))):
        save(tmp_path / "sites" / f"b_{name}.png", image.astype(np.uint8))
    pack.pack_sites(tmp_path / "sites", tmp_path / "sites.npz")
    (found,) = load_sites(tmp_path / "sites.npz")
    assert found.name == "b"
    assert all((getattr(found, k) == getattr(site, k)[0]).all() for k in ("before", "after", "label"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_exception_packing_a_mask_with_other_values(pack, tmp_path):
    save(tmp_path / "mask.png", np.full((1, 8, 8), 7, np.uint8))
    with pytest.raises(SystemExit, match="other values than 0 and 255"):
        pack.read_label(tmp_path / "mask.png")
    with pytest.raises(SystemExit, match="has 1 bands"):
        pack.read(tmp_path / "mask.png", 3)


def dates(pairs):
    return pairs.before, pairs.after, pairs.label


def test_figures_of_a_perfect_and_of_no_answer(bench):
    pairs = made_pairs(3, 64, 1)
    truth = {(b.tobytes(), a.tobytes()): y for b, a, y in zip(*dates(pairs), strict=True)}
    perfect = bench.Method(lambda b, a: truth[b.tobytes(), a.tobytes()] * 1.0, 0.5)
    rows = {
        name: bench.measured(method, method.threshold, bench.as_sites(pairs), 0.5)
        for name, method in {"perfect": perfect, "nothing": bench.methods({})["no change"]}.items()
    }
    best = rows["perfect"].figures(rows["nothing"])
    assert [best[k] for k in ("f1", "iou", "kappa", "object_f1", "lead")] == [1.0] * 5
    assert best["lead_interval"] == [1.0, 1.0]
    none = rows["nothing"].figures(rows["perfect"])
    assert (none["f1"], none["recall"], none["lead"]) == (0.0, 0.0, -1.0)
    assert none["pixels"]["fn"] == pairs.label.sum()


def test_figures_count_a_network_as_pixel_by_pixel_and_change_with_the_dates(bench, tmp_path):
    path, _, _ = write_building_change_weights(tmp_path / "net.safetensors")
    rows = bench.methods({"net": str(path)})
    pairs = made_pairs(1, 64, 3)
    score = rows["net"].score(pairs.before[0], pairs.after[0])
    row = bench.measured(rows["net"], 0.3, bench.as_sites(pairs), 0.5)
    assert row.images == [confusion(score >= 0.3, pairs.label[0])]
    swapped = rows["net, dates swapped"].score(pairs.after[0], pairs.before[0])
    assert np.array_equal(score, swapped)


def test_objects_below_the_least_area_are_left_out(bench):
    mask = np.zeros((20, 20), bool)
    mask[:3, :3] = mask[10:15, 10:15] = True
    assert np.unique(bench.objects(mask, 9)).tolist() == [0, 1, 2]
    assert np.unique(bench.objects(mask, 10)).tolist() == [0, 1]


def test_verdict_needs_an_interval_above_zero(release):
    def figures(interval):
        return {"LEVIR, validation": {release.ROW: {"lead_interval": interval}}, "SZTAKI": {}}

    assert release.beats_baseline(figures([0.01, 0.4]))
    assert not release.beats_baseline(figures([-0.01, 0.4]))
    assert not release.beats_baseline(figures(None))


@pytest.mark.slow
def test_feature_an_unfinished_training_is_released_once_and_says_so(release, tmp_path, monkeypatch):
    folder, shelf = tmp_path / "run", tmp_path / "shelf"
    shelf.mkdir()
    pairs = load_pairs(packed(folder / "pack"))
    calls = iter([False] * 3 + [True])
    config = TrainConfig(network={"width": 4}, steps=4, validations=4, tile=64, seed=5)
    train(
        Sampler(pairs.only(0), 32, 2, 5), config, folder / "paper", validation=pairs.only(1),
        events=Events(cancelled=lambda: next(calls)),
    )  # fmt: skip
    listed, run = [], []
    monkeypatch.setattr(release, "FOLDER", shelf)
    monkeypatch.setattr(release, "update_manifest", lambda path, name: listed.append((path, name)))
    figure = dict.fromkeys(release.SHOWN, 0.5) | {"f1_interval": [0.4, 0.6], "lead_interval": [0.1, 0.2]}

    def benchmark(command, **_):
        run.append(command)
        if "--json" in command:
            Path(command[command.index("--json") + 1]).write_text(
                json.dumps({f"LEVIR, {command[command.index('--part') + 1]}": {release.ROW: figure}})
            )

    monkeypatch.setattr(release.subprocess, "run", benchmark)
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["release", str(folder), "--threads", threads])
    release.main()
    release.main()
    assert sum("scored" in command for command in run) == 1
    assert listed[-1] == (shelf / "building_change.safetensors", "building_change")
    card = load_weights(shelf / "building_change.safetensors", None).card
    state = read_state(folder / "paper" / CHECKPOINT)
    assert card.status == "released"
    assert (card.extra["steps"], card.extra["steps_planned"]) == (3, 4)
    assert "stopped after at least 3 of 4 steps" in card.limits
    assert (card.extra["mean"], card.extra["std"]) == (state["mean"], state["std"])
    assert 0 <= card.extra["threshold"] < 1
    assert "finds 50% of the changed pixels" in card.limits
    assert "--steps 4 --batch 2 --crop 32 --lr 0.001" in card.command
    net, _, score = release.best_of(folder / "paper")
    assert asdict(load_best(folder / "paper" / BEST, net)) == card.extra["best"] == asdict(score)
    # other weights in the same folder: the scored images have been seen
    save_best(folder / "paper" / BEST, net, replace(score, f1=1.0))
    with pytest.raises(SystemExit, match="looked at once"):
        release.main()
