"""The loop that trainings share, with the smallest training there is: a line that learns to be 2x."""

from dataclasses import dataclass

import pytest
import torch
from kestrel.models.task import ModelError
from kestrel.models.training.begin import begin, described, prepare_folder
from kestrel.models.training.checkpoint import read_state
from kestrel.models.training.log import read_rows
from kestrel.models.training.loop import CHECKPOINT, LOG, Loop


@dataclass(frozen=True)
class Config:
    network: dict
    steps: int = 6
    minutes: float = 0.0
    lr: float = 0.1
    seed: int = 0
    device: str = "cpu"
    log_steps: int = 2
    checkpoint_seconds: float = 60.0


class Line(torch.nn.Conv2d):
    """One weight and one offset."""

    def __init__(self, bias):
        super().__init__(1, 1, 1, bias=bias)
        self.config = {"bias": bias}


class Toy(Loop):
    columns = tuple("step seconds progress loss score".split())

    def __init__(self, config, out):
        net = begin(Line, config, None)
        state = described(config, net.config, {"pairs": 1}, None)
        optimiser = torch.optim.Adam(net.parameters(), lr=config.lr)
        super().__init__(net, optimiser, config, out, state, resume=True)

    def learn(self, batch, progress):
        loss = (self.net(batch) - 2 * batch).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.ema.update(self.net)
        self.step += 1
        return {"loss": loss.item()}

    def validate(self):
        return {"score": float(self.step)}


def batches(first, closed):
    try:
        while True:
            yield torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(first))
            first += 1
    finally:
        closed.append(first)


def run(out, stop_after=None, validations=0, **changes):
    """Train; returns the loop, whether it was complete, what was told, and whether the source was closed."""
    prepare_folder(out, (CHECKPOINT, LOG), resume=True)
    toy, told, closed = Toy(Config({"bias": True}, **changes), out), [], []
    complete = toy.run(
        batches(toy.step, closed),
        validations,
        lambda stand, part, measured: told.append((stand.step, stand.total, stand.fraction, measured)),
        lambda: toy.step == stop_after,
    )
    assert len(closed) == bool(told)  # a generator that never began has nothing to close
    return toy, complete, told


def test_save_load_a_cancelled_loop_goes_on_bit_for_bit(tmp_path):
    whole, complete, _ = run(tmp_path / "whole")
    _, stopped, _ = run(tmp_path / "parts", stop_after=3)
    assert (complete, stopped, read_state(tmp_path / "parts" / CHECKPOINT)["step"]) == (True, False, 3)
    again, complete, told = run(tmp_path / "parts")
    assert complete
    assert [step for step, *_ in told] == [4, 5, 6]
    for net, other in ((whole.net, again.net), (whole.ema.net, again.ema.net)):
        for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_feature_scores_fall_evenly_and_lines_are_means(tmp_path):
    toy, _, told = run(tmp_path, validations=2, log_steps=100)
    assert told == [(i, 6, i / 6, i in (3, 6)) for i in range(1, 7)]
    rows = toy.rows()
    assert rows == read_rows(tmp_path / LOG)
    assert [(row["step"], row["score"]) for row in rows] == [(3, 3), (6, 6)]


def test_feature_a_checkpoint_of_other_settings_is_refused_of_another_pace_taken(tmp_path):
    run(tmp_path, stop_after=2)
    with pytest.raises(ModelError, match="belongs to another training"):
        run(tmp_path, lr=0.2)
    toy, complete, _ = run(tmp_path, log_steps=5, checkpoint_seconds=1.0)
    assert (complete, toy.step) == (True, 6)
