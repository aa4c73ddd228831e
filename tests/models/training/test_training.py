"""What every training shares: averaging, schedule, log, and a state that resumes any optimiser exactly."""

import csv
import math

import pytest
import torch
from kestrel.models.task import ModelError
from kestrel.models.training.checkpoint import (
    is_checkpoint,
    load_average,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from kestrel.models.training.ema import Ema, scaled_decay
from kestrel.models.training.log import append_row, keep_rows, read_rows
from kestrel.models.training.schedule import cosine_rate, progress_of

OPTIMISERS = {
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=0.01),
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True),
}


def small_net(seed, width=3):
    torch.manual_seed(seed)
    layers = torch.nn.Conv2d(2, width, 3), torch.nn.BatchNorm2d(width), torch.nn.Conv2d(width, 1, 1)
    return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)


def some_steps(net, ema, optimiser, first, last):
    """Steps ``first`` to ``last``, each on an image that follows from its number."""
    for step in range(first, last):
        image = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        net(image).square().mean().backward()
        optimiser.step()
        ema.update(net)


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_save_load_a_state_goes_on_bit_for_bit(tmp_path, kind):
    path, run = tmp_path / "c.safetensors", []
    for stop in (None, 3):
        net = small_net(0)
        ema, optimiser = Ema(net), OPTIMISERS[kind](net)
        some_steps(net, ema, optimiser, 0, stop or 6)
        if stop:
            save_checkpoint(path, net, ema, optimiser, {"step": stop})
            net = small_net(1)
            ema, optimiser = Ema(net), OPTIMISERS[kind](net)
            assert load_checkpoint(path, net, ema, optimiser)["step"] == stop
            some_steps(net, ema, optimiser, stop, 6)
        run.append({**net.state_dict(), **{f"ema {k}": v for k, v in ema.net.state_dict().items()}})
    for name, value in run[0].items():
        assert torch.equal(value, run[1][name]), name


def test_save_load_the_average_and_the_state_alone(tmp_path):
    path, net = tmp_path / "c.safetensors", small_net(0)
    ema, optimiser = Ema(net), OPTIMISERS["adamw"](net)
    some_steps(net, ema, optimiser, 0, 2)
    save_checkpoint(path, net, ema, optimiser, {"step": 2, "seconds": 1.5})
    assert is_checkpoint(path)
    assert read_state(path)["seconds"] == 1.5
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
    other = small_net(1)
    load_average(path, other)
    for a, b in zip(ema.net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_save_load_what_a_loss_remembers(tmp_path):
    path, net, loss = tmp_path / "c.safetensors", small_net(0), torch.nn.BatchNorm1d(1)
    ema, optimiser = Ema(net), OPTIMISERS["sgd"](net)
    with torch.no_grad():
        loss.running_mean.fill_(7.0)
    save_checkpoint(path, net, ema, optimiser, {}, loss)
    found = torch.nn.BatchNorm1d(1)
    load_checkpoint(path, net, ema, optimiser, found)
    assert found.running_mean.item() == 7.0


def test_exception_not_a_checkpoint_of_this_network_or_version(tmp_path):
    path, net = tmp_path / "c.safetensors", small_net(0)
    ema, optimiser = Ema(net), OPTIMISERS["adamw"](net)
    path.write_bytes(b"\x80\x04pickle")
    assert not is_checkpoint(path)
    with pytest.raises(ModelError, match="not a training checkpoint"):
        read_state(path)
    save_checkpoint(path, net, ema, optimiser, {})
    wide = small_net(0, width=4)
    with pytest.raises(ModelError, match="another network"):
        load_checkpoint(path, wide, Ema(wide), OPTIMISERS["adamw"](wide))
    with pytest.raises(ModelError, match="another network"):
        load_average(path, wide)
    save_checkpoint(path, net, ema, optimiser, {"layout": 1})
    with pytest.raises(ModelError, match="another version"):
        read_state(path)


def test_feature_average_reaches_back_over_a_ninth_of_the_steps():
    assert scaled_decay(0) == pytest.approx(0.1)
    assert scaled_decay(900) == pytest.approx(1 - 9 / 910)
    assert scaled_decay(10**6) == 0.999
    # weight of the start after n steps: the product of all decays, 10!/((n+1)...(n+10)) up to the cap
    kept = math.prod(scaled_decay(k) for k in range(1, 101))
    assert kept == pytest.approx(math.prod((k + 1) / (k + 10) for k in range(1, 101)))
    assert kept < 1e-9


def test_feature_average_of_weights_and_statistics():
    net = torch.nn.BatchNorm1d(1)
    ema = Ema(net, lambda updates: 1 - 0.5**updates)
    with torch.no_grad():
        net.weight.fill_(3.0)
        net.running_mean.fill_(8.0)
        net.num_batches_tracked.fill_(7)
    ema.update(net)
    ema.update(net)
    assert ema.net.weight.item() == pytest.approx(0.75 * 2 + 0.25 * 3)
    assert ema.net.running_mean.item() == pytest.approx(0.75 * 4 + 0.25 * 8)
    assert ema.net.num_batches_tracked.item() == 7
    assert not any(p.requires_grad for p in ema.net.parameters())


@pytest.mark.parametrize(
    ("steps", "minutes", "step", "seconds", "expected"),
    [(200, 0, 50, 9999, 0.25), (0, 2, 50, 90, 0.75), (200, 2, 50, 90, 0.75), (200, 2, 180, 90, 0.9)],
)
def test_feature_budget_of_steps_or_minutes(steps, minutes, step, seconds, expected):
    assert progress_of(step, seconds, steps=steps, minutes=minutes) == expected


def test_exception_no_budget():
    with pytest.raises(ValueError, match="steps or minutes"):
        progress_of(1, 1.0)


def test_feature_cosine_with_warm_up():
    rate = {"lr": 4e-4, "warmup": 10}
    assert cosine_rate(0, 0.0, **rate) == pytest.approx(4e-5)
    assert cosine_rate(9, 0.0, **rate) == pytest.approx(4e-4)
    assert cosine_rate(500, 0.5, **rate) == pytest.approx(2e-4)
    assert cosine_rate(750, 0.75, **rate) == pytest.approx(4e-4 * (1 - math.sqrt(0.5)) / 2)
    assert cosine_rate(1000, 1.2, **rate) == 0
    assert cosine_rate(0, 0.0, lr=1.0, warmup=0) == 1


def test_save_load_log_with_gaps(tmp_path):
    path, columns = tmp_path / "log.csv", ("step", "loss", "psnr")
    append_row(path, {"step": 10, "loss": 0.25}, columns)
    append_row(path, {"step": 20, "loss": 0.125, "psnr": 21.5}, columns)
    assert read_rows(path) == [{"step": 10, "loss": 0.25}, {"step": 20, "loss": 0.125, "psnr": 21.5}]
    keep_rows(path, 15, columns)
    assert read_rows(path) == [{"step": 10, "loss": 0.25}]
    with path.open(encoding="utf-8") as file:
        assert next(csv.reader(file)) == list(columns)
