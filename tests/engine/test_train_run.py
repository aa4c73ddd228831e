"""A training through the engine: what it leaves, how it goes on, what it refuses before it learns."""

import dataclasses
import json
import os
import re
import threading
import time

import numpy as np
import pytest
from kestrel.engine.checkpoints import KEPT_DAYS, checkpoint_folder
from kestrel.engine.errors import Cancelled, EngineError
from kestrel.engine.job import Job
from kestrel.engine.run import run_job
from kestrel.models.weights import load_weights
from kestrel.tests.support import jobs
from kestrel.tests.support.pages import Page
from kestrel.tests.support.rasters import PLACES, write
from kestrel.tests.support.ship_weights import write_ship_weights
from kestrel.tests.support.training_pairs import ground, training_job, write_pair
from rasterio import Affine


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("layers"))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


class Interrupter(jobs.Recorder):
    """Cancels once so many steps of the training are done."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def progress(self, fraction, done, total, stage, seconds_left):
        super().progress(fraction, done, total, stage, seconds_left)
        if stage == "training" and total and done >= self.step:
            self.cancel.set()


@pytest.fixture
def every_step(monkeypatch):
    """Progress is not throttled, so that a test can stop at a step."""
    monkeypatch.setattr("kestrel.engine.events.INTERVAL_S", 0.0)


def run(job, events=None):
    events = events or jobs.Recorder()
    return run_job(job, events), events


def saved(cache):
    root = cache / "cache" / "training"
    return sorted(root.iterdir()) if root.exists() else []


def test_feature_weights_card_and_report(pair, out, home):
    job = training_job(*pair, out, report=True, seed=5)
    outcome, events = run(job)
    assert sorted(os.listdir(out)) == ["own.safetensors", "report.html"]
    weights = load_weights(out / "own.safetensors", outcome.figures["model"]["sha256"])
    card = weights.card
    assert (card.preset, card.status, card.seed, card.bands) == ("small", "preliminary", 5, 3)
    assert [(entry["source"], entry["role"], entry["real"]) for entry in card.data] == [
        ("hazy.tif", "hazy", True),
        ("clear.tif", "clear", True),
    ]
    assert card.command.startswith("qgis_process run kestrel:traindehazing -- HAZY=hazy.tif CLEAR=clear.tif ")
    assert "SEED=5" in card.command
    assert card.extra["stretch"] == [[0, 255]] * 3
    assert card.gsd == pytest.approx((5, 20), rel=0.01)  # half and twice the layers' 10 m
    assert card.figures == outcome.figures["validation"]
    (figures,) = card.figures.values()
    gain = figures["psnr_db"] - figures["psnr_db_input"]
    assert figures["gain_db"] == pytest.approx(gain, abs=2e-4)
    assert figures["gain_over_affine_db"] == pytest.approx(
        figures["psnr_db"] - figures["psnr_db_affine"], abs=2e-4
    )
    assert {"ssim", "ssim_input", "ssim_affine"} <= set(figures)
    assert card.extra["history"][-1]["epoch"] == 2
    assert saved(home) == []
    page = Page((out / "report.html").read_text())
    assert {"Validation", "Curves", "Validation crops"} <= set(page.texts)
    assert page.open == []
    # two curves and four crops, each before, after, clear
    assert page.tags.count("img") == 2 + 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    stages = [step[3] for step in events.steps]
    assert stages.index("cutting crops") < stages.index("training") < stages.index("saving")
    fractions = [step[0] for step in events.steps]
    assert fractions == sorted(fractions)
    training = [step for step in events.steps if step[3] == "training" and step[2]]
    assert training[-1][1:3] == (12, 12)  # 24 crops in batches of 4, twice
    assert training[-1][4] == 0
    epochs = [text for _, text in events.lines if text.startswith("Epoch")]
    assert [re.split("[ :]", text)[1] for text in epochs] == ["1", "2"]


def test_feature_trained_file_removes_haze_and_says_that_its_pixel_size_is_unknown(out, tmp_path):
    pair = write_pair(tmp_path, place="bare")
    run(training_job(*pair, out))
    job = Job(
        "predict",
        "dehazing",
        {"image": {"path": str(pair[0]), "bands": []}},
        {"raster": str(out / "clear.tif")},
        {"weights": str(out / "own.safetensors")},
        device="cpu",
    )
    outcome, _ = run(job)
    assert outcome.figures["model"]["id"].startswith("dehazing_own@")
    (told,) = (text for text in outcome.warnings if "preliminary" in text)
    assert "The pixel size of what it learned from is unknown" in told


@pytest.mark.slow
def test_oracle_interrupted_training_ends_with_the_same_weights(pair, tmp_path, home, every_step):
    tensors = {}
    for name, stops in (("through", ()), ("broken", (3, 8))):
        folder = tmp_path / name
        folder.mkdir()
        job = training_job(*pair, folder)
        for stop in stops:
            with pytest.raises(Cancelled):
                run(job, Interrupter(stop))
            assert os.listdir(folder) == []
            assert [path.name for path in saved(home)] == [checkpoint_folder(job).name]
        _, events = run(job)
        first = next(step for step in events.steps if step[3] == "training" and step[2])
        assert first[1] == (stops[-1] + 1 if stops else 1)
        assert any(text.startswith("Going on from") for _, text in events.lines) == bool(stops)
        weights = load_weights(folder / "own.safetensors", None)
        tensors[name] = weights.tensors
        epochs = [row["epoch"] for row in weights.card.extra["history"]]
        assert epochs == sorted(set(epochs))
        assert epochs[-1] == 2
        assert saved(home) == []
    assert tensors["through"].keys() == tensors["broken"].keys()
    for name, tensor in tensors["through"].items():
        assert bool((tensor == tensors["broken"][name]).all()), name


@pytest.mark.slow
def test_feature_another_seed_learns_something_else(pair, tmp_path):
    found = []
    for seed in (0, 0, 1):
        folder = tmp_path / f"{len(found)}"
        folder.mkdir()
        run(training_job(*pair, folder, seed=seed))
        found.append(load_weights(folder / "own.safetensors", None).tensors)
    name = next(iter(found[0]))
    assert bool((found[0][name] == found[1][name]).all())
    assert not bool((found[0][name] == found[2][name]).all())


def test_feature_other_pixels_start_anew(tmp_path, out, every_step):
    pair = write_pair(tmp_path)
    job = training_job(*pair, out)
    with pytest.raises(Cancelled):
        run(job, Interrupter(4))
    write(pair[1], np.rint(ground(160, 192, seed=3) * 255).astype(np.uint8))
    _, events = run(job)
    assert any("starts anew" in text for _, text in events.lines)
    assert next(step for step in events.steps if step[3] == "training" and step[2])[1] == 1


def test_feature_checkpoint_does_not_depend_on_the_scratch_folder(tmp_path):
    """A layer that QGIS exports lies in a folder of another name each time."""
    jobs_ = []
    for name in ("kestrel-a", "kestrel-b"):
        scratch = tmp_path / name
        jobs_.append(
            training_job(scratch / "hazy.tif", tmp_path / "clear.tif", tmp_path, scratch=str(scratch))
        )
    assert checkpoint_folder(jobs_[0]) == checkpoint_folder(jobs_[1])
    other = dataclasses.replace(jobs_[0], params={**jobs_[0].params, "seed": 9})
    assert checkpoint_folder(other) != checkpoint_folder(jobs_[0])


def test_feature_abandoned_checkpoints_are_swept(pair, out, home):
    old, new = (home / "cache" / "training" / name for name in ("old", "new"))
    for folder, days in ((old, KEPT_DAYS + 1), (new, KEPT_DAYS - 1)):
        folder.mkdir(parents=True)
        (folder / "checkpoint.safetensors").write_bytes(b"x")
        then = time.time() - days * 24 * 3600
        os.utime(folder / "checkpoint.safetensors", (then, then))
    run(training_job(*pair, out))
    assert saved(home) == [new]


@pytest.mark.parametrize("hazy_too", [False, True])
def test_feature_simulated_haze_over_a_clear_layer(pair, out, hazy_too):
    outcome, _ = run(training_job(pair[0] if hazy_too else None, pair[1], out, simulate=True, report=True))
    assert any("simulated" in text for text in outcome.warnings)
    card = load_weights(out / "own.safetensors", None).card
    assert any("simulated" in entry["source"] and entry["real"] is False for entry in card.data)
    assert [entry["real"] for entry in card.data if "role" in entry] == [hazy_too] * (1 + hazy_too)
    assert "simulated" in (out / "report.html").read_text()


@pytest.mark.slow
def test_feature_pairs_on_another_grid_and_sixteen_bits(tmp_path, out):
    hazy, _ = write_pair(tmp_path, dtype="uint16")
    crs, _ = PLACES["north_up"]
    fine = Affine(5, 0, 500_000, 0, -5, 5_000_000)
    clear = np.rint(ground(160, 192).repeat(2, 1).repeat(2, 2) * 2550).astype(np.uint16)
    clear = write(tmp_path / "fine.tif", clear, crs=crs, transform=fine)
    outcome, _ = run(training_job(hazy, clear, out))
    assert any("CLEAR was resampled (bilinear) to HAZY hazy.tif's grid" in text for text in outcome.warnings)
    assert outcome.figures["scaling"]["mode"] == "percentile"
    # haze lifts what is dark, so the clear layer leaves the stretch of the hazy one
    assert any("lie outside the stretch" in text and "STRETCH_MIN" in text for text in outcome.warnings)
    given = {"stretch_min": [0], "stretch_max": [2550]}
    outcome, _ = run(training_job(hazy, clear, out, **given))
    assert outcome.figures["stretch"]["high"] == [2550] * 3
    assert not any("lie outside the stretch" in text for text in outcome.warnings)
    assert load_weights(out / "own.safetensors", None).card.extra["stretch"] == [[0, 2550]] * 3


@pytest.mark.slow
def test_feature_fine_tuning_starts_from_base_weights(pair, tmp_path, out):
    run(training_job(*pair, out, epochs=4))
    base = out / "base.safetensors"
    (out / "own.safetensors").rename(base)
    rate = {"learning_rate": 1e-7, "epochs": 1}
    run(training_job(*pair, out, base_weights=str(base), **rate))
    before, after = (load_weights(out / name, None) for name in ("base.safetensors", "own.safetensors"))
    for name, tensor in before.tensors.items():
        if tensor.is_floating_point() and "running" not in name:
            assert float((tensor.float() - after.tensors[name].float()).abs().max()) < 1e-3, name
    assert before.model_id in after.card.extra["note"]
    assert "BASE_WEIGHTS=base.safetensors" in after.card.command


def bands_of(pair, tmp_path, count):
    image = np.rint(ground(160, 192) * 255).astype(np.uint8)
    image = np.concatenate([image, image])[:count]
    return write(tmp_path / f"bands{count}.tif", image)


def constant(pair, tmp_path):
    image = np.rint(ground(160, 192) * 255).astype(np.uint8)
    image[1] = 7
    return write(tmp_path / "flat.tif", image)


def radar(pair, tmp_path, name="radar"):
    image = np.random.default_rng(0).normal(-12, 3, (3, 160, 192)).astype(np.float32)
    return write(tmp_path / f"{name}.tif", image)


def far_away(pair, tmp_path):
    place = Affine(10, 0, 700_000, 0, -10, 5_000_000)
    return write(tmp_path / "far.tif", np.rint(ground(160, 192) * 255).astype(np.uint8), transform=place)


def small(pair, tmp_path):
    return write(tmp_path / "small.tif", np.rint(ground(64, 100) * 255).astype(np.uint8))


def empty(pair, tmp_path):
    image = np.zeros((3, 160, 192), np.uint8)
    image[:, :20, :20] = 9
    image[:, 5, 5] = 8
    return write(tmp_path / "empty.tif", image, nodata=0)


def sixteen(pair, tmp_path):
    return write(tmp_path / "sixteen.tif", np.rint(ground(160, 192) * 2550).astype(np.uint16))


#: (what HAZY is, what CLEAR is, params, the sentence); None = as in the pair, "" = not given
REFUSALS = {
    "no-overlap": (None, far_away, {}, r"CLEAR far.tif does not overlap HAZY hazy.tif"),
    "bands-differ": (
        None,
        lambda *a: bands_of(*a, 5),
        {},
        r"HAZY hazy.tif has 3 bands and CLEAR bands5.tif has 5",
    ),
    "same": (lambda pair, _: pair[1], None, {}, r"HAZY and CLEAR are the same raster \(clear.tif\)"),
    "too-few-bands": (
        lambda *a: bands_of(*a, 2),
        None,
        {},
        r"bands2.tif has 2 bands; .* three visible bands",
    ),
    "clear-too-few": (None, lambda *a: bands_of(*a, 1), {}, r"bands1.tif has 1 band; .* three visible bands"),
    "typed-band": (None, None, {"bands": [1, 2, 4]}, r"hazy.tif has 3 bands, so there is no band 4"),
    "few-crops": (
        small,
        None,
        {},
        r"HAZY small.tif and CLEAR clear.tif hold 6 crops of 32 x 32 .* at least 8",
    ),
    "nodata": (empty, None, {}, r"hold 0 crops of 32 x 32"),
    "constant": (constant, None, {}, r"Band 2 of flat.tif is constant"),
    "constant-clear": (None, constant, {}, r"Band 2 of flat.tif is constant"),
    "sar": (
        radar,
        lambda *a: radar(*a, "later"),
        {},
        r"Bands 1, 2, 3 of radar.tif look like SAR in decibels",
    ),
    "sar-clear": ("", radar, {"simulate": True}, r"look like SAR in decibels"),
    "units": (None, sixteen, {}, r"CLEAR sixteen.tif is uint16 and hazy.tif is uint8, and no scale tags"),
    "no-hazy": ("", None, {}, r"HAZY: a layer is needed"),
    "no-clear": (None, "", {}, r"CLEAR: a layer is needed"),
    "crop": (None, None, {"crop": 60}, r"CROP is 60; it must be a multiple of 8, such as 56 or 64"),
    "crop-small": (None, None, {"crop": 8}, r"CROP is 8; it must be a whole number from 32 to 1024"),
    "epochs": (None, None, {"epochs": 0}, r"EPOCHS is 0; it must be a whole number from 1 to 10000"),
    "batch": (None, None, {"batch": 2.5}, r"BATCH is 2.5; it must be a whole number"),
    "rate": (None, None, {"learning_rate": 0}, r"LEARNING_RATE is 0; it must be a number from 1e-07 to 0.1"),
    "seed": (None, None, {"seed": -1}, r"SEED is -1"),
    "preset": (None, None, {"preset": "huge"}, r"PRESET is 'huge'; it must be one of paper, small"),
    "stretch": (None, None, {"stretch_min": [1]}, r"STRETCH_MIN is given, but STRETCH_MAX is empty"),
    "stretch-order": (None, None, {"stretch_min": [9], "stretch_max": [9]}, r"STRETCH_MIN 9 must be below"),
    "device": (None, None, {"device": "cuda"}, r"DEVICE cuda was asked for"),
    "base-missing": (None, None, {"base_weights": "/no/a.safetensors"}, r"BASE_WEIGHTS: Weights not found"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_exception_one_sentence_before_any_step(case, pair, tmp_path, out, home):
    hazy, clear, params, words = REFUSALS[case]
    paths = [
        which(pair, tmp_path) if callable(which) else given if which is None else None
        for which, given in zip((hazy, clear), pair, strict=True)
    ]
    (out / "own.safetensors").write_text("old")
    events = jobs.Recorder()
    with pytest.raises(EngineError, match=words) as error:
        run(training_job(*paths, out, **params), events)
    assert "\n" not in error.value.message
    assert not any(step[3] == "training" for step in events.steps)
    assert os.listdir(out) == ["own.safetensors"]
    assert (out / "own.safetensors").read_text() == "old"
    assert saved(home) == []


def test_exception_base_weights_of_another_model(pair, tmp_path, out):
    ships, _, _ = write_ship_weights(tmp_path / "ships.safetensors")
    with pytest.raises(EngineError, match=r"BASE_WEIGHTS: ships.safetensors"):
        run(training_job(*pair, out, base_weights=str(ships)))


def test_exception_base_weights_of_another_preset(pair, out):
    run(training_job(*pair, out, epochs=1))
    job = training_job(*pair, out, base_weights=str(out / "own.safetensors"), preset="paper")
    with pytest.raises(EngineError, match="are of the preset small, but PRESET is paper") as error:
        run(job)
    assert error.value.hint == "Set PRESET to small."


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"report": "r.html"}, "names no output 'weights'"),
        ({"weights": "own.pt"}, r"OUTPUT_WEIGHTS own.pt must end with \.safetensors"),
        ({"weights": "own.safetensors", "raster": "a.tif"}, "makes no output 'raster'"),
        ({"weights": "nowhere/own.safetensors"}, "folder .* does not exist"),
    ],
)
def test_exception_outputs(pair, out, outputs, words):
    job = training_job(*pair, out)
    job = dataclasses.replace(job, outputs={name: str(out / path) for name, path in outputs.items()})
    with pytest.raises(EngineError, match=words):
        run(job)


def test_exception_model_that_cannot_be_trained(pair, out):
    job = dataclasses.replace(training_job(*pair, out), model="cfar")
    with pytest.raises(EngineError, match="'cfar' cannot be trained") as error:
        run(job)
    assert "dehazing" in error.value.hint


def test_fault_cancel_before_the_first_step_leaves_nothing(pair, out, home):
    events = jobs.Recorder()
    events.cancel.set()
    with pytest.raises(Cancelled):
        run(training_job(*pair, out), events)
    assert os.listdir(out) == []


def test_fault_cancel_takes_less_than_two_seconds(pair, out):
    events = jobs.Recorder()
    ended = {}

    def train():
        try:
            run(training_job(*pair, out, epochs=1000), events)
        except Cancelled:
            ended["at"] = time.monotonic()

    thread = threading.Thread(target=train)
    thread.start()
    while not any(step[3] == "training" and step[1] for step in events.steps) and thread.is_alive():
        time.sleep(0.02)
    asked = time.monotonic()
    events.cancel.set()
    thread.join(30)
    assert ended["at"] - asked < 2
    assert os.listdir(out) == []


def test_fault_layer_changed_meanwhile(tmp_path, out, every_step):
    pair = write_pair(tmp_path)

    class Changer(jobs.Recorder):
        def progress(self, fraction, done, total, stage, seconds_left):
            if stage == "training" and done == 3:
                write(pair[0], np.rint(ground(160, 192, seed=3) * 255).astype(np.uint8))

    with pytest.raises(EngineError, match="was changed while it was being read"):
        run(training_job(*pair, out), Changer())
    assert os.listdir(out) == []


def test_fault_damaged_checkpoint_starts_anew(pair, out, every_step):
    job = training_job(*pair, out)
    with pytest.raises(Cancelled):
        run(job, Interrupter(4))
    (checkpoint_folder(job) / "checkpoint.safetensors").write_bytes(b"nonsense")
    _, events = run(job)
    assert next(step for step in events.steps if step[3] == "training" and step[2])[1] == 1


def test_feature_figures_are_json(pair, out):
    outcome, _ = run(training_job(*pair, out))
    json.dumps(outcome.figures)
    assert outcome.figures["crops"]["learned from"] == 24
    assert outcome.figures["crops"]["validated on"] == 6
    assert {"start", "training", "saving"} <= set(outcome.figures["seconds"])
