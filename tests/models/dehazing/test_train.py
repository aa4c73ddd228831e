"""The training loop: exact resuming, budgets, events, refusals, weight files, and learning by heart."""

import json
import math

import numpy as np
import pytest
import torch
from kestrel.models.dehazing.data import Pairs, Sampler
from kestrel.models.dehazing.loss import LAMBDA
from kestrel.models.dehazing.metrics import psnr
from kestrel.models.dehazing.network import PRESETS, DWTMANet
from kestrel.models.dehazing.recipe import fine_tunings, pretraining
from kestrel.models.dehazing.restore import restore
from kestrel.models.dehazing.train import AVERAGE, LAST, main, parse
from kestrel.models.dehazing.trainer import (
    BEST_PSNR,
    CHECKPOINT,
    LOG,
    Events,
    TrainConfig,
    describe_data,
    mean_psnr,
    train,
)
from kestrel.models.dehazing.weights import describe, preset_of, read_start, write_weights
from kestrel.models.task import ModelError
from kestrel.models.training.checkpoint import read_state
from kestrel.models.training.log import read_rows
from kestrel.models.weights import load_weights

TINY = {"widths": (2, 4, 8, 4, 2), "depths": (1, 1, 1, 1, 1)}
QUICK = {"network": TINY, "warmup": 2, "validations": 0, "log_steps": 2}


def ground(count, size, seed):
    """Clear pictures of smooth patches with edges, float32 (count, 3, size, size)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.1, 0.7, (count, 3, size // 8, size // 8))
    return (coarse.repeat(8, 2).repeat(8, 3) + rng.normal(0, 0.02, (count, 3, size, size))).astype(np.float32)


def veiled(count, size, seed):
    """Pairs under an even veil, 8-bit counts."""
    clear = ground(count, size, seed)
    counts = [np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8) for image in (clear * 0.5 + 0.45, clear)]
    return Pairs(*counts, np.arange(count), np.arange(count) % 5)


def sampler(**changes):
    return Sampler(**{"scenes": (), "pairs": veiled(4, 32, 0), "crop": 16, "batch": 2, "seed": 3, **changes})


def test_save_load_a_cancelled_training_resumes_bit_for_bit(tmp_path):
    config = TrainConfig(steps=6, **QUICK)
    whole = train(sampler(), config, tmp_path / "whole")
    calls = iter([False, False, False, True])
    part = train(sampler(), config, tmp_path / "parts", events=Events(cancelled=lambda: next(calls)))
    assert (part.complete, part.step) == (False, 3)
    assert read_state(tmp_path / "parts" / CHECKPOINT)["step"] == 3
    again = train(sampler(), config, tmp_path / "parts")
    assert (whole.complete, again.complete, again.step) == (True, True, 6)
    for net, other in ((whole.net, again.net), (whole.last, again.last)):
        for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_save_load_a_log_line_after_the_last_checkpoint_is_written_once(tmp_path):
    config = TrainConfig(steps=4, **QUICK)
    calls = iter([False, False, True])
    train(sampler(), config, tmp_path, events=Events(cancelled=lambda: next(calls)))
    with (tmp_path / LOG).open("a", encoding="utf-8") as file:  # as a run killed at step 4 leaves it
        file.write("4,1,1,0,9,9,9,9,\n")
    result = train(sampler(), config, tmp_path)
    assert [row["step"] for row in result.rows] == [2, 4]
    assert result.rows[1]["loss"] != 9


def test_feature_same_seed_same_weights_another_seed_others(tmp_path):
    config = TrainConfig(steps=2, **QUICK)
    first, second = (train(sampler(), config, tmp_path / name).net.state_dict() for name in ("a", "b"))
    other = train(sampler(seed=4), config, tmp_path / "c").net.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.values(), other.values(), strict=True))


def test_feature_progress_tells_both_loss_terms_and_the_schedule(tmp_path):
    told = []
    config = TrainConfig(steps=4, lr=1e-3, **{**QUICK, "validations": 2, "warmup": 0})
    pairs = veiled(2, 24, 9)
    result = train(sampler(), config, tmp_path, validation=pairs, events=Events(progress=told.append))
    assert [(p.step, p.total, p.fraction) for p in told] == [(i, 4, i / 4) for i in (1, 2, 3, 4)]
    assert [p.lr for p in told] == pytest.approx(
        [1e-3 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    )
    for p in told:
        assert p.loss == pytest.approx(p.pixels + LAMBDA * p.fourier, rel=1e-6)
    assert [p.psnr is not None for p in told] == [False, True, False, True]
    assert result.psnr == told[-1].psnr == mean_psnr(result.net, pairs)
    rows = read_rows(tmp_path / LOG)
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["pixels"] == pytest.approx((told[0].pixels + told[1].pixels) / 2, rel=1e-5)


def test_feature_psnr_of_a_known_error_and_of_none():
    clear = np.full((1, 3, 16, 16), 100, np.uint8)
    off = Pairs(clear + np.uint8(5), clear, np.zeros(1), np.zeros(1))
    assert mean_psnr(None, off) == pytest.approx(20 * math.log10(255 / 5))
    assert mean_psnr(None, Pairs(clear, clear, np.zeros(1), np.zeros(1))) == BEST_PSNR


def test_feature_minutes_end_a_training_and_steps_end_it_sooner(tmp_path):
    result = train(sampler(), TrainConfig(minutes=0.01, **QUICK), tmp_path / "minutes")
    assert result.complete
    assert result.step >= 1
    assert result.rows[-1]["step"] == result.step
    assert train(sampler(), TrainConfig(minutes=60, steps=1, **QUICK), tmp_path / "both").step == 1


def test_exception_checkpoint_of_another_training(tmp_path):
    train(sampler(), TrainConfig(steps=1, **QUICK), tmp_path)
    config = TrainConfig(steps=2, **QUICK)
    for other, settings in (
        (sampler(), config),
        (sampler(pairs=veiled(4, 32, 1)), TrainConfig(steps=1, **QUICK)),
    ):
        with pytest.raises(ModelError, match="another training"):
            train(other, settings, tmp_path)
    assert train(sampler(), config, tmp_path, resume=False).step == 2


@pytest.mark.parametrize(
    ("changes", "crop", "message"),
    [
        ({"steps": 0}, 16, "no end"),
        ({"lr": 0.0}, 16, "learning rate 0"),
        ({}, 20, "multiple of 8"),
        ({"network": {"widths": (1, 2, 3, 4, 5)}}, 16, "cannot be built"),
    ],
)
def test_exception_before_anything_is_written(tmp_path, changes, crop, message):
    with pytest.raises(ModelError, match=message):
        train(sampler(crop=crop), TrainConfig(**{**QUICK, "steps": 1, **changes}), tmp_path / "out")
    assert not (tmp_path / "out" / CHECKPOINT).exists()


def test_exception_start_of_another_network(tmp_path):
    start = DWTMANet(**PRESETS["small"]).state_dict()
    with pytest.raises(ModelError, match="belong to another network"):
        train(sampler(), TrainConfig(steps=1, **QUICK), tmp_path, start=start)


def test_exception_diverged_training(tmp_path):
    net = DWTMANet(**TINY)
    with torch.no_grad():
        net.head.bias.fill_(math.inf)
    with pytest.raises(ModelError, match="diverged at step 1"):
        train(sampler(), TrainConfig(steps=1, **QUICK), tmp_path, start=net.state_dict())


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (5, 40)])
def test_shape_restored_pictures_of_any_size(size):
    net = DWTMANet(**TINY).eval()
    with torch.no_grad():  # K = B = 0: the network leaves its input alone
        net.head.weight.zero_()
        net.head.bias.zero_()
    image = np.random.default_rng(0).random((3, *size), dtype=np.float32)
    np.testing.assert_array_equal(restore(net, image), image)


def test_save_load_weight_file_and_card(tmp_path):
    result = train(sampler(), TrainConfig(steps=1, **QUICK), tmp_path)
    card = describe(result.net, name="mine", data=[], training=result.state, command="train", limits="none")
    sha256 = write_weights(tmp_path / "mine.safetensors", result.net, card)
    found = load_weights(tmp_path / "mine.safetensors", sha256).card
    assert (found.preset, found.tile, found.bands, found.status) == ("custom", 512, 3, "preliminary")
    assert found.extra["steps"] == 1
    assert found.extra["crops_seen"] == 2
    assert found.seed == 0
    assert "amplitudes" in found.extra["fourier_attention"]
    assert preset_of(DWTMANet(**PRESETS["small"]).config) == "small"


def test_save_load_starts_from_weights_and_from_checkpoints(tmp_path):
    result = train(sampler(), TrainConfig(steps=1, **QUICK), tmp_path)
    card = describe(result.net, name="mine", data=[], training=result.state, command="", limits="")
    write_weights(tmp_path / "mine.safetensors", result.net, card)
    exact, half = (read_start(str(tmp_path / name)) for name in (CHECKPOINT, "mine.safetensors"))
    assert exact.network == half.network == result.net.config
    for (name, value), a, b in zip(
        result.net.state_dict().items(), exact.tensors.values(), half.tensors.values(), strict=True
    ):
        assert torch.equal(a, value), name
        torch.testing.assert_close(b, value, rtol=1e-3, atol=1e-6, msg=name)
    with pytest.raises(ModelError, match="not found"):
        read_start(str(tmp_path / "none.safetensors"))


def test_feature_data_are_told_apart_by_their_values():
    ours = describe_data(sampler())
    assert (ours["pairs"], ours["scenes"], ours["crop"]) == (4, 0, 16)
    assert describe_data(sampler())["sha256"] == ours["sha256"]
    assert describe_data(sampler(pairs=veiled(4, 32, 1)))["sha256"] != ours["sha256"]


def pack(folder):
    """A packed folder of four pairs and six scenes, two in each part."""
    folder.mkdir()
    pairs = veiled(4, 64, 0)
    np.savez(folder / "real.npz", hazy=pairs.hazy, clear=pairs.clear, number=pairs.number, block=pairs.block)
    scenes = np.rint(255 * np.clip(ground(6, 64, 1), 0, 1)).astype(np.uint8)
    np.savez(folder / "clear.npz", scenes=scenes, name=np.array(list("abcdef")), split=np.arange(6) // 2)
    return folder


def test_smoke_command_line_pretrains_and_fine_tunes(tmp_path):
    folder = pack(tmp_path / "pack")
    kept = torch.get_num_threads()
    common = f"--batch 2 --crop 16 --steps 2 --validations 1 --seed 5 --threads {kept}"
    assert main(f"{folder} --out {tmp_path / 'pre'} {common}".split()) == 0
    tuned = f"{folder} --out {tmp_path / 'fold1'} --init {tmp_path / 'pre' / AVERAGE}"
    assert main(f"{tuned} --real-share 0.5 --hold-out 1 {common}".split()) == 0
    first, second = (load_weights(tmp_path / name / AVERAGE, None).card for name in ("pre", "fold1"))
    assert [source["real"] for source in first.data] == [False]
    assert [source["images"] for source in second.data] == [2, 3]
    assert second.data[1]["numbers"] == "0, 2-3"
    assert second.extra["note"].startswith("started from dehazing_pre@")
    assert first.preset == second.preset == "small"
    assert "hazy" in json.dumps(first.figures)
    assert "--hold-out 1" in second.command
    assert (
        load_weights(tmp_path / "fold1" / LAST, None).sha256
        != load_weights(tmp_path / "fold1" / AVERAGE, None).sha256
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [("--real-share 2", "share of real"), ("--crop 16", "no end"), ("--crop 72 --steps 1", "64 pixels")],
)
def test_exception_command_line_says_one_sentence(tmp_path, caplog, typed, message):
    folder = pack(tmp_path / "pack")
    typed = f"{folder} --out {tmp_path / 'out'} --threads {torch.get_num_threads()} {typed}"
    assert main(typed.split()) == 1
    assert message in caplog.text


def test_feature_recipe_is_what_the_command_line_takes():
    stages = [pretraining(7), *fine_tunings(7)]
    read = [parse(["pack", "--out", stage.name, *stage.arguments]) for stage in stages]
    assert {args.seed for args in read} == {7}
    assert [args.hold_out for args in read] == [-1, 0, 1, 2, 3, 4, -1]
    assert [args.real_share > 0 for args in read] == [False] + 6 * [True]
    assert all(args.steps and not args.minutes for args in read)  # a limit of time would not repeat


@pytest.mark.slow
def test_feature_four_pairs_are_learnt_by_heart(tmp_path):
    pairs = veiled(4, 64, 2)
    data = Sampler((), pairs, crop=64, batch=4, seed=0)
    config = TrainConfig(steps=300, lr=2e-3, validations=1)
    result = train(data, config, tmp_path, validation=pairs)
    assert result.psnr > 30
    assert result.psnr > result.before + 8
    image = pairs.hazy[0].astype(np.float32) / 255
    assert psnr(restore(result.net, image), pairs.clear[0].astype(np.float32) / 255) > 28
