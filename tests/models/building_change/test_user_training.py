"""SSA-Net on a user's crops: what is typed, what is kept, what the card says, and resuming."""

import numpy as np
import pytest
import torch
from kestrel.models import registry
from kestrel.models.building_change import user_training
from kestrel.models.building_change.metrics import Confusion
from kestrel.models.building_change.predict import change_map
from kestrel.models.building_change.task import build_network
from kestrel.models.building_change.user_training import build
from kestrel.models.task import ModelError
from kestrel.models.trainable import Crops
from kestrel.models.weights import load_weights, save_weights
from kestrel.tests.support.building_change_weights import MEAN, STD, write_building_change_weights
from kestrel.tests.support.change_pairs import made_pairs

TYPED = {"epochs": 2, "batch": 4, "crop": 32, "seed": 1}


def crops(count=10, scored=2):
    pairs = made_pairs(count, 32, 0)
    images = {"before": pairs.before, "after": pairs.after}  # 8-bit counts, as the engine keeps them
    images["changes"] = pairs.label[:, None].astype(np.uint8)
    return Crops(images, np.arange(count) >= count - scored)


@pytest.fixture
def base(tmp_path):
    return str(write_building_change_weights(tmp_path / "base.safetensors")[0])


@pytest.mark.slow
def test_feature_the_best_epoch_is_kept_and_the_card_says_what_the_file_does(tmp_path, base):
    training = registry.trainer("building_change")({**TYPED, "base_weights": base}, "cpu")
    assert [each.role for each in training.inputs] == ["before", "after"]
    assert training.required == ("before", "after", training.labels)
    moments, own = [], crops()
    trained = training.learn(own, tmp_path / "run", moments.append, lambda: False)
    assert [m.done for m in moments] == [1, 2, 3, 4]
    assert [m.row["epoch"] for m in moments if m.row] == [1.0, 2.0]
    path = tmp_path / "own.safetensors"
    save_weights(path, trained.tensors, trained.card, trained.buffers)
    loaded = load_weights(path, None)
    extra = loaded.card.extra
    assert (extra["mean"], extra["std"]) == (MEAN, STD)  # those of the weights it started from
    assert extra["best"]["f1"] == max(m.row["validation F1"] for m in moments if m.row)
    net = build_network(loaded).eval()
    found, label = [], own.part("changes", True)[:, 0] > 0.5
    for before, after in zip(own.part("before", True), own.part("after", True), strict=True):
        found.append(change_map(net, before, after, MEAN, STD, tile=32, stride=32) >= extra["threshold"])
    f1 = 2 * (np.array(found) & label).sum() / (np.array(found).sum() + label.sum())
    (figures,) = loaded.card.figures.values()
    assert figures["f1"] == pytest.approx(f1, abs=2e-3)  # thresholds are counted in bins
    assert trained.examples
    assert "squares of 32 pixels; kestrel:detectbuildingchange takes tiles of 256" in trained.notes[-1]
    pictures = [image for e in trained.examples for image in (e.before, e.after, e.truth)]
    assert all(image.shape == (3, 32, 32) and 0 <= image.min() < image.max() <= 1 for image in pictures)
    last = trained.history[-1]
    assert last["iou"] == pytest.approx(last["f1"] / (2 - last["f1"]), abs=1e-4)


@pytest.mark.slow
def test_save_load_a_stopped_training_goes_on_to_the_same_end(tmp_path, base):
    training = build({**TYPED, "base_weights": base}, "cpu")
    whole = training.learn(crops(), tmp_path / "whole", lambda moment: None, lambda: False)
    calls = iter([False] * 2 + [True])
    assert training.learn(crops(), tmp_path / "parts", lambda moment: None, lambda: next(calls)) is None
    again = training.learn(crops(), tmp_path / "parts", lambda moment: None, lambda: False)
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, again.tensors[name]), name
    assert whole.card.figures == again.card.figures


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"crop": 40}, "CROP is 40; it must be a multiple of 16, such as 32 or 48"),
        ({"crop": 16}, "CROP is 16; it must be a whole number from 32"),
        ({"epochs": 0}, "EPOCHS is 0"),
        ({"batch": 1.5}, "BATCH is 1.5"),
        ({"learning_rate": True}, "LEARNING_RATE is True"),
        ({"base_weights": "nobody"}, "BASE_WEIGHTS: "),
    ],
)
def test_exception_typed_values(typed, message):
    with pytest.raises(ModelError, match=message):
        build({**TYPED, **typed}, "cpu")


@pytest.mark.parametrize(("scored", "message"), [(True, "No validation crop"), (False, "No training pair")])
def test_exception_one_part_without_a_change(tmp_path, base, scored, message):
    own = crops()
    own.images["changes"][own.validation == scored] = 0
    with pytest.raises(ModelError, match=message):
        build({**TYPED, "base_weights": base}, "cpu").learn(own, tmp_path, lambda m: None, lambda: False)


@pytest.mark.parametrize("counts", [(30, 10, 5, 55), (1, 0, 9, 90), (0, 0, 3, 7), (0, 4, 3, 7)])
def test_oracle_iou_and_kappa_follow_from_precision_recall_and_share(counts):
    found = Confusion(*counts)
    share = (found.tp + found.fn) / sum(counts)
    told = user_training.agreement(found.precision, found.recall, share)
    if found.tp:
        assert told == pytest.approx({"iou": found.iou, "kappa": found.kappa}, abs=1e-12)
    else:  # nothing says how much was marked in vain
        assert told == {"iou": 0, "kappa": pytest.approx(0)}


def test_feature_weights_hardly_better_than_marking_everything_warn():
    everything = Confusion(10, 90, 0, 0)
    assert user_training._warnings(Confusion(8, 2, 2, 88), everything) == []
    (text,) = user_training._warnings(Confusion(0, 0, 10, 90), everything)
    assert "0.00, hardly better than marking everything (0.18)" in text
    assert user_training._warnings(Confusion(10, 85, 0, 5), everything)
