"""BCE and Dice against hand computation (specification 08, section 9, check 6)."""

import math

import pytest
import torch
from kestrel.models.building_change.loss import loss_terms


def test_feature_a_perfect_answer_costs_nothing():
    label = torch.zeros(2, 1, 8, 8)
    label[0, 0, :4] = 1  # the other picture has no change at all
    bce, dice = loss_terms(200 * label - 100, label)
    assert float(bce) == pytest.approx(0, abs=1e-6)
    assert float(dice) == pytest.approx(0, abs=1e-6)


def test_feature_no_opinion_costs_ln_2():
    label = torch.zeros(1, 1, 4, 4)
    label[0, 0, 0] = 1
    bce, dice = loss_terms(torch.zeros_like(label), label)
    assert float(bce) == pytest.approx(math.log(2), abs=1e-6)
    assert float(dice) == pytest.approx(1 - 2 * (4 * 0.5) / (4 + 16 * 0.25), abs=1e-6)


def test_feature_dice_is_taken_for_each_picture():
    """One picture right, one entirely wrong: 1/2, whatever their shares of change are."""
    label = torch.zeros(2, 1, 8, 8)
    label[0], label[1, 0, 0, 0] = 1, 1
    logits = torch.full_like(label, -100.0)
    logits[0] = 100
    assert float(loss_terms(logits, label)[1]) == pytest.approx(0.5, abs=1e-6)


def test_gradcheck_both_terms():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    label = (torch.rand(2, 1, 3, 3, generator=generator) > 0.5).double()
    assert torch.autograd.gradcheck(loss_terms, (logits, label))
