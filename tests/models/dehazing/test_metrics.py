"""Metrics: known values, what the affine fit takes out, and what it leaves."""

import numpy as np
import pytest
from kestrel.models.dehazing.metrics import (
    Affine,
    Scores,
    evaluate,
    fit_bands,
    interval,
    psnr,
    ssim,
    t_quantile,
)
from scipy import stats


def picture(seed: int, side: int = 48) -> np.ndarray:
    """A rough picture well inside 0..1, float32 (3, side, side)."""
    rng = np.random.default_rng(seed)
    return (0.3 + 0.3 * rng.random((3, side, side))).astype(np.float32)


def test_psnr_of_a_constant_difference_is_its_formula():
    truth = np.zeros((3, 8, 8), np.float32)
    for dn in (1, 5, 40):
        assert psnr(truth + np.float32(dn / 255), truth) == pytest.approx(20 * np.log10(255 / dn), abs=1e-4)
    assert psnr(truth, truth) == float("inf")


def test_ssim_of_constant_pictures_is_its_luminance_term():
    a, b = np.full((3, 16, 16), 0.2, np.float32), np.full((3, 16, 16), 0.6, np.float32)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, rel=1e-4)
    assert ssim(picture(0), picture(0)) == pytest.approx(1)
    assert ssim(picture(0), 1 - picture(0)) < 0  # contrast turned round


def test_evaluate_rounds_to_eight_bits():
    truth = np.full((3, 16, 16), 100, np.uint8)
    exact = evaluate(lambda image: image + np.float32(0.4 / 255), [(truth, truth)])
    assert exact.psnr[0] == float("inf")
    off = evaluate(lambda image: image + np.float32(0.6 / 255), [(truth, truth)])
    assert off.psnr[0] == pytest.approx(20 * np.log10(255), abs=1e-4)


def test_affine_fit_takes_colour_out_and_leaves_structure():
    truth = picture(1)
    veiled = 0.5 * truth + np.array([0.2, 0.3, 0.4], np.float32)[:, None, None]
    fitted = evaluate(lambda image: image, [(veiled, truth)])
    assert fitted.psnr[0] < 20
    assert fitted.psnr_fitted[0] > 50  # rounding alone, doubled by the gain
    assert fitted.ssim_fitted[0] > 0.99
    other = evaluate(lambda image: image, [(picture(2), truth)])
    assert other.psnr_fitted[0] < 25  # unrelated pictures stay so


def test_fit_bands_is_the_least_squares_solution_over_all_pairs():
    rng = np.random.default_rng(3)
    images, truths = rng.random((2, 4, 3, 6, 7), dtype=np.float32)
    affine = fit_bands(images, truths)
    for band in range(3):
        gain, offset = np.polyfit(images[:, band].ravel(), truths[:, band].ravel(), 1)
        assert affine.gain[band] == pytest.approx(gain, abs=1e-5)
        assert affine.offset[band] == pytest.approx(offset, abs=1e-5)


def test_fit_of_a_flat_band_moves_it_only():
    flat, truth = np.full((1, 3, 8, 8), 0.25, np.float32), np.full((1, 3, 8, 8), 0.75, np.float32)
    affine = fit_bands(flat, truth)
    assert affine.gain.tolist() == [1, 1, 1]
    assert affine.offset == pytest.approx([0.5, 0.5, 0.5])


def test_affine_shape_and_bands():
    affine = Affine(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.1, 0.2]))
    answer = affine(np.full((3, 2, 5), 0.1, np.float32))
    assert answer.shape == (3, 2, 5)
    assert answer.dtype == np.float32
    assert answer[:, 0, 0] == pytest.approx([0.1, 0.3, 0.5])


def test_interval_covers_the_mean_nineteen_times_of_twenty():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        mean, half = interval(rng.normal(1.0, 2.0, 16))
        hits += abs(mean - 1.0) <= half
    assert 925 <= hits <= 975  # 950 +- 3.6 standard deviations


def test_interval_of_too_few_pairs_is_not_a_number():
    assert np.isnan(interval(np.array([]))).all()
    mean, half = interval(np.array([2.0]))
    assert mean == 2
    assert np.isnan(half)


def test_joined_scores_keep_their_order():
    a, b = (Scores(*np.full((4, n), value)) for n, value in ((2, 1.0), (3, 2.0)))
    assert Scores.joined([a, b]).ssim_fitted.tolist() == [1, 1, 2, 2, 2]
    assert len(Scores.joined([a, b])) == 5


def test_t_quantile_is_students():
    for freedom in (1, 2, 3, 5, 10, 37, 77, 1000):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=0.005)
