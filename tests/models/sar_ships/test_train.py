"""Schedule, averaging, exact resuming, and learning eight chips by heart (specification 4.3 and 9)."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from kestrel.models.sar_ships.dataset import Packed, to_tensor
from kestrel.models.sar_ships.detect import detect
from kestrel.models.sar_ships.loss import DetectionLoss, momentum_for
from kestrel.models.sar_ships.metrics import evaluate
from kestrel.models.sar_ships.network import SarShipNet
from kestrel.models.sar_ships.schedule import apply_rates, ema_decay, make_optimiser, rates
from kestrel.models.sar_ships.train import main
from kestrel.models.sar_ships.trainer import CHECKPOINT, TrainConfig, train
from kestrel.models.task import ModelError
from kestrel.models.training.checkpoint import load_average, read_state
from kestrel.models.training.ema import Ema

QUICK = {
    "image_size": 64,
    "batch": 2,
    "warmup": 4,
    "validations": 0,
    "width": 0.05,
    "depth": 0.1,
    "attention": "eca",
}


def ellipse_chips(count, size, seed):
    """Speckle with one to three bright ellipses a chip, and their boxes."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size]
    chips, boxes, offsets = np.empty((count, size, size), np.uint8), [], [0]
    for i in range(count):
        image = rng.gamma(4, 1 / 4, (size, size)) * 40
        for k in range(n := int(rng.integers(1, 4))):
            cx, cy = (k + 0.5) * size / n + rng.uniform(-3, 3), rng.uniform(0.25, 0.75) * size
            a, t = rng.uniform(0.06, 0.12) * size, rng.uniform(0, np.pi)
            b = a * rng.uniform(0.25, 0.5)
            u = (xx - cx) * np.cos(t) + (yy - cy) * np.sin(t)
            v = (yy - cy) * np.cos(t) - (xx - cx) * np.sin(t)
            inside = (u / a) ** 2 + (v / b) ** 2 < 1
            image[inside] += rng.gamma(4, 1 / 4, inside.sum()) * 150
            rows, cols = np.nonzero(inside)
            boxes.append([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
        offsets.append(offsets[-1] + n)
        chips[i] = np.clip(image, 0, 255)
    source = np.zeros(count, np.int64)
    return Packed(chips, np.array(boxes, np.float32), np.array(offsets), source, ("ellipses",), source + 10.0)


def test_feature_rates_of_the_schedule():
    kind = {"lr": 0.01, "momentum": 0.937, "warmup": 100}
    first, last = rates(0, 0.0, **kind), rates(5000, 1.0, **kind)
    assert (first.lr, first.bias_lr, first.momentum) == (0, 0.1, 0.8)
    assert (last.lr, last.bias_lr) == (pytest.approx(0.0001), pytest.approx(0.0001))
    assert rates(100, 0.0, **kind).lr == 0.01
    assert rates(50, 0.0, **kind).lr == pytest.approx(0.005)
    assert rates(50, 0.0, **kind).bias_lr == pytest.approx(0.055)
    assert rates(1000, 0.5, **kind).lr == pytest.approx(0.00505)
    assert rates(9999, 1.7, **kind).lr == pytest.approx(0.0001), "never below the end"


def test_feature_only_weights_decay():
    net = SarShipNet()
    optimiser = make_optimiser(net, lr=0.01, momentum=0.9, decay=0.5)
    decayed = {id(p) for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    weights = {id(m.weight) for m in net.modules() if isinstance(m, torch.nn.Conv2d)}
    assert decayed == weights
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(net.parameters()))
    apply_rates(optimiser, rates(0, 0.0, lr=0.01, momentum=0.937, warmup=10))
    assert [(g["lr"], g["momentum"]) for g in optimiser.param_groups] == [(0.1, 0.8), (0, 0.8), (0, 0.8)]


def test_feature_average_has_the_ramp():
    net = torch.nn.BatchNorm1d(1)
    ema = Ema(net, ema_decay)
    with torch.no_grad():
        net.weight.fill_(3.0)
        net.running_mean.fill_(5.0)
        net.num_batches_tracked.fill_(7)
    ema.update(net)
    decay = 0.9999 * (1 - math.exp(-1 / 2000))
    assert ema.net.weight.item() == pytest.approx(decay * 1 + (1 - decay) * 3)
    assert ema.net.running_mean.item() == pytest.approx((1 - decay) * 5)
    assert ema.net.num_batches_tracked.item() == 7
    assert not any(p.requires_grad for p in ema.net.parameters())


def test_save_load_a_stopped_training_resumes_bit_for_bit(tmp_path):
    data, config = ellipse_chips(4, 96, 0), TrainConfig(steps=6, **QUICK)
    whole, _ = train(config, data, None, tmp_path / "whole")
    calls = iter([False, False, False, True])
    train(config, data, None, tmp_path / "parts", stop=lambda: next(calls))
    assert read_state(tmp_path / "parts" / CHECKPOINT)["step"] == 3
    again, state = train(config, data, None, tmp_path / "parts")
    assert state["step"] == 6
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_save_load_the_average_alone(tmp_path):
    config = TrainConfig(steps=2, **QUICK)
    net, state = train(config, ellipse_chips(4, 96, 0), None, tmp_path)
    other = SarShipNet(**state["network"])
    assert load_average(tmp_path / CHECKPOINT, other)["step"] == 2
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_exception_checkpoint_of_another_training(tmp_path):
    data = ellipse_chips(4, 96, 0)
    train(TrainConfig(steps=1, **QUICK), data, None, tmp_path)
    with pytest.raises(ModelError, match="another training"):
        train(TrainConfig(steps=1, seed=5, **QUICK), data, None, tmp_path)


def test_exception_checkpoint_that_is_none(tmp_path):
    path = tmp_path / CHECKPOINT
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="not a training checkpoint"):
        train(TrainConfig(steps=1, **QUICK), ellipse_chips(4, 96, 0), None, tmp_path)


def test_exception_image_size(tmp_path):
    with pytest.raises(ModelError, match="300 is not a multiple of 64"):
        train(TrainConfig(image_size=300), ellipse_chips(1, 96, 0), None, tmp_path)


def test_smoke_command_line_writes_log_and_checkpoint(tmp_path):
    data = ellipse_chips(4, 96, 0)
    np.savez(
        tmp_path / "a.npz", chips=data.chips, boxes=data.boxes, offsets=data.offsets, source=data.source,
        sources=np.array(data.sources), pixel_m=data.pixel_m,
    )  # fmt: skip
    source = str(tmp_path / "a.npz")
    typed = (
        f"--data {source} --val {source} --out {tmp_path / 'out'} --steps 2 --batch 2 --image-size 64 "
        f"--depth 0.1 --width 0.05 --attention none --threads {torch.get_num_threads()} --seed 3"
        " --share ellipses=1"
    )
    main(typed.split())
    with (tmp_path / "out" / "log.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["step"] == "2"
    assert math.isfinite(float(rows[-1]["loss"]))
    state = read_state(tmp_path / "out" / CHECKPOINT)
    assert state["config"]["seed"] == 3
    assert json.loads(json.dumps(state))["step"] == 2


@pytest.mark.slow
def test_feature_eight_chips_are_learnt_by_heart():
    torch.manual_seed(0)
    data, steps = ellipse_chips(8, 192, 1), 300
    images, rows = to_tensor(data.chips), []
    for i in range(8):
        rows += [
            [i, 0, (b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]]
            for b in data.boxes_of(i).tolist()
        ]
    targets = torch.tensor(rows)
    net = SarShipNet().train()
    loss_of, ema = DetectionLoss(net), Ema(net, ema_decay)
    loss_of.box.momentum = momentum_for(steps)
    optimiser = make_optimiser(net, lr=0.01, momentum=0.937, decay=0.0005 / 8)
    for step in range(steps):
        apply_rates(optimiser, rates(step, step / steps, lr=0.01, momentum=0.937, warmup=30))
        loss, _ = loss_of(net(images), targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10)
        optimiser.step()
        ema.update(net)
    found = detect(ema.net, list(data.chips), confidence=0.001, nms_iou=0.6, limit=300)
    scores = evaluate(found, [data.boxes_of(i) for i in range(8)])
    assert scores.ap50 > 0.95
    assert scores.ap > 0.6
