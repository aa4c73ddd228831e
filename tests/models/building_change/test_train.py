"""The training loop: exact resuming, the kept best, refusals, the command line, and learning by heart."""

import math

import numpy as np
import pytest
import torch
from kestrel.models.building_change.data import PLAIN, Sampler
from kestrel.models.building_change.network import PRESETS, SSANet
from kestrel.models.building_change.recipe import ablations, shipped
from kestrel.models.building_change.train import main, parse
from kestrel.models.building_change.trainer import (
    BEST,
    CHECKPOINT,
    LOG,
    POWER,
    Events,
    TrainConfig,
    load_best,
    measure,
    train,
)
from kestrel.models.task import ModelError
from kestrel.models.training.checkpoint import load_average, read_state
from kestrel.models.training.log import read_rows
from kestrel.tests.support.change_pairs import made_pairs

TINY = {"width": 4}
QUICK = {"network": TINY, "validations": 2, "log_steps": 2, "tile": 64}


def sampler(**changes):
    return Sampler(**{"pairs": made_pairs(4, 64, 0), "crop": 32, "batch": 2, "seed": 3, **changes})


def cancel_after(steps):
    calls = iter([False] * steps + [True])
    return Events(cancelled=lambda: next(calls))


def assert_same(net, other):
    for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_save_load_a_cancelled_training_resumes_bit_for_bit(tmp_path):
    config, validation = TrainConfig(steps=6, **QUICK), made_pairs(2, 64, 9)
    whole = train(sampler(), config, tmp_path / "whole", validation=validation)
    part = train(sampler(), config, tmp_path / "parts", validation=validation, events=cancel_after(4))
    assert (part.complete, part.step) == (False, 4)
    assert read_state(tmp_path / "parts" / CHECKPOINT)["best"]["step"] == 3
    again = train(sampler(), config, tmp_path / "parts", validation=validation)
    assert (whole.complete, again.complete, again.step) == (True, True, 6)
    assert whole.best == again.best
    assert_same(whole.net, again.net)
    for key in ("step", "f1", "threshold"):
        assert [r.get(key) for r in whole.rows if "f1" in r] == [r.get(key) for r in again.rows if "f1" in r]


@pytest.mark.slow
def test_feature_the_best_average_is_kept_and_measures_what_it_says(tmp_path):
    validation = made_pairs(2, 64, 9)
    result = train(sampler(), TrainConfig(steps=4, lr=1e-2, **QUICK), tmp_path, validation=validation)
    scores = [row["f1"] for row in read_rows(tmp_path / LOG) if "f1" in row]
    assert len(scores) == 2
    assert result.best.f1 == pytest.approx(max(scores), rel=1e-5)
    kept = SSANet(**TINY).eval()
    assert load_best(tmp_path / BEST, kept) == result.best
    assert_same(kept, result.net)
    curve = measure(kept, validation, result.mean, result.std, tile=64)
    assert curve.best() == (result.best.threshold, result.best.f1)
    assert curve.at(0).fp == (~validation.label).sum()


def test_feature_rate_falls_by_the_power_of_the_rest(tmp_path):
    told = []
    train(sampler(), TrainConfig(steps=4, **QUICK), tmp_path, events=Events(progress=told.append))
    assert [p.lr for p in told] == pytest.approx([1e-3 * (1 - k / 4) ** POWER for k in range(4)])
    assert told[0].loss == pytest.approx(told[0].bce + told[0].dice, rel=1e-6)
    assert told[-1].fraction == 1
    assert not (tmp_path / BEST).exists()  # without validation pairs nothing is chosen


def test_feature_fine_tuning_starts_from_weights_and_their_normalisation(tmp_path):
    start, normal = SSANet(**TINY).state_dict(), ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    stopped = Events(cancelled=lambda: True)
    config = TrainConfig(steps=1, **QUICK)
    result = train(sampler(), config, tmp_path, start=start, normal=normal, events=stopped)
    assert (result.step, result.mean, result.std) == (0, *normal)
    for name, value in result.net.state_dict().items():
        assert torch.equal(value, start[name]), name
    with pytest.raises(ModelError, match="another training"):
        train(sampler(), config, tmp_path)
    with pytest.raises(ModelError, match="belong to another network"):
        train(
            sampler(), TrainConfig(steps=1, **{**QUICK, "network": {"width": 8}}), tmp_path / "b", start=start
        )


@pytest.mark.parametrize(
    ("changes", "crop", "message"),
    [
        ({"steps": 0}, 32, "no end"),
        ({"lr": 0.0}, 32, "learning rate 0"),
        ({}, 40, "multiple of 16"),
        ({}, 16, "from 32 on"),
        ({"network": {"breadth": 4}}, 32, "cannot be built"),
    ],
)
def test_exception_before_anything_is_written(tmp_path, changes, crop, message):
    with pytest.raises(ModelError, match=message):
        train(sampler(crop=crop), TrainConfig(**{**QUICK, "steps": 1, **changes}), tmp_path / "out")
    assert not (tmp_path / "out" / CHECKPOINT).exists()


def test_exception_diverged_training(tmp_path):
    net = SSANet(**TINY)
    with torch.no_grad():
        next(iter(net.parameters())).fill_(math.nan)
    with pytest.raises(ModelError, match="diverged at step 1"):
        train(sampler(), TrainConfig(steps=1, **QUICK), tmp_path, start=net.state_dict())


def pack(folder):
    """A packed folder of pairs in all three parts."""
    folder.mkdir()
    parts = [made_pairs(2, 64, part, part) for part in range(3)]
    whole = {key: np.concatenate([getattr(p, key) for p in parts]) for key in vars(parts[0])}
    np.savez(folder / "levir.npz", **whole)
    return folder


def test_smoke_command_line_learns_from_the_training_part_alone(tmp_path):
    folder = pack(tmp_path / "pack")
    typed = f"{folder} --preset small --batch 2 --crop 32 --steps 1 --validations 1 --no-ssif"
    out = tmp_path / "run"
    assert main(f"{typed} --out {out} --threads {torch.get_num_threads()}".split()) == 0
    state = read_state(out / CHECKPOINT)
    assert (state["data"]["pairs"], state["network"]["use_ssif"], state["network"]["use_csh"]) == (
        2,
        False,
        True,
    )
    assert state["best"]["step"] == 1


@pytest.mark.slow
def test_feature_command_line_begins_from_weights_of_the_same_network(tmp_path, caplog):
    typed = f"{pack(tmp_path / 'pack')} --preset small --batch 2 --crop 32 --steps 1 --validations 0"
    typed += f" --threads {torch.get_num_threads()} --no-ssif"
    assert main(f"{typed} --out {tmp_path / 'first'}".split()) == 0
    begun = f"{typed} --seed 1 --init {tmp_path / 'first' / CHECKPOINT}"
    assert main(f"{begun} --lr 1e-30 --decay 0 --out {tmp_path / 'second'}".split()) == 0
    nets = [SSANet(**PRESETS["small"], use_ssif=False) for _ in range(2)]
    for net, name in zip(nets, ("first", "second"), strict=True):
        load_average(tmp_path / name / CHECKPOINT, net)
    # a rate of nothing: the parameters are those that it began from
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert main([*begun.replace("--no-ssif", "").split(), "--out", str(tmp_path / "third")]) == 1
    assert "Choose its preset and switches" in caplog.text


@pytest.mark.slow
def test_save_load_stopping_after_a_step_happens_once(tmp_path):
    typed = f"{pack(tmp_path / 'pack')} --preset small --batch 2 --crop 32 --steps 3 --validations 0"
    typed += f" --threads {torch.get_num_threads()} --out {tmp_path / 'run'} --stop-after 2"
    for _ in range(2):  # called again, it is where it was to stop
        assert main(typed.split()) == 0
        assert read_state(tmp_path / "run" / CHECKPOINT)["step"] == 2


def test_feature_recipe_is_what_the_command_line_takes():
    first, last = shipped(7)
    begun = parse(["pack", "--out", first.name, *first.arguments])
    gone_on = parse(["pack", "--out", last.name, *last.arguments])
    assert 0 < begun.stop_after < begun.steps
    assert gone_on.init == f"{first.name}/{CHECKPOINT}"
    # the rate goes on falling from where the first part left it
    left = begun.lr * (1 - begun.stop_after / begun.steps) ** POWER
    assert gone_on.lr == pytest.approx(left, rel=0.05)
    for stage in ablations():
        assert parse(["pack", "--out", stage.name, *stage.arguments]).steps


def test_exception_command_line_says_one_sentence(tmp_path, caplog):
    typed = f"{pack(tmp_path / 'pack')} --out {tmp_path / 'out'} --threads {torch.get_num_threads()}"
    for more, message in (("--crop 80 --steps 1", "64 pixels"), ("--crop 32", "no end")):
        assert main([*typed.split(), *more.split()]) == 1
        assert message in caplog.text


@pytest.mark.slow
def test_feature_eight_pairs_are_learnt_by_heart(tmp_path):
    pairs = made_pairs(8, 64, 2)
    data = Sampler(pairs, crop=64, batch=8, seed=0, mix=PLAIN)
    config = TrainConfig(steps=100, validations=1, tile=64)
    result = train(data, config, tmp_path, validation=pairs)
    assert result.best.f1 > 0.95
