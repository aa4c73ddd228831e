import numpy as np
import pytest
from kestrel.models.classical.haze import cloud_field, simulate


def ground(shape=(60, 80), seed=0):
    return np.random.default_rng(seed).random((3, *shape), dtype=np.float32)


def test_feature_the_scattering_model_holds():
    image = ground()
    haze = simulate(image, 1)
    veil = haze.airlight[:, None, None] * (1 - haze.transmission)
    np.testing.assert_allclose(haze.image, image * haze.transmission + veil, atol=1e-6)


def test_feature_display_counts_are_mixed_as_light():
    image = ground()
    haze = simulate(image, 1, gamma=2.2)
    veil = haze.airlight[:, None, None] ** 2.2 * (1 - haze.transmission)
    np.testing.assert_allclose(haze.image**2.2, image**2.2 * haze.transmission + veil, atol=1e-6)


def test_feature_transmission_spans_what_was_asked_for():
    red = simulate(ground((300, 400)), 2, thinnest=0.8, thickest=0.25).transmission[0]
    assert red.min() == pytest.approx(0.25, abs=1e-6)
    assert red.max() == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("angstrom", [0.0, 1.0, 4.0])
def test_feature_depth_follows_angstroms_law(angstrom):
    depth = -np.log(simulate(ground(), 3, angstrom=angstrom).transmission.astype(np.float64))
    np.testing.assert_allclose(depth[2], depth[0] * (0.66 / 0.48) ** angstrom, rtol=1e-5)
    np.testing.assert_allclose(depth[1], depth[0] * (0.66 / 0.56) ** angstrom, rtol=1e-5)


def test_feature_no_haze_is_the_image():
    image = ground()
    np.testing.assert_array_equal(simulate(image, 4, thinnest=1.0, thickest=1.0).image, image)


def test_feature_the_seed_decides():
    one, same, other = (simulate(ground(), seed).image for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_feature_banks_are_smooth_and_as_wide_as_asked():
    narrow, wide = (cloud_field((400, 400), 7, width) for width in (50, 200))
    steps = [max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) for field in (narrow, wide)]
    # three octaves: the finest cells measure a quarter, a cell changes by less than the whole range
    assert steps[0] < 4 / 50
    assert steps[1] < 4 / 200


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3)])
def test_shape_small_images(shape):
    haze = simulate(ground(shape), 8)
    assert haze.image.shape == haze.transmission.shape == (3, *shape)
    assert np.isfinite(haze.image).all()


@pytest.mark.parametrize(
    ("image", "limits", "said"),
    [
        (np.zeros((4, 5, 5), np.float32), {}, "shape"),
        (np.zeros((5, 5), np.float32), {}, "shape"),
        (ground(), {"thickest": 0.0}, "Transmissions"),
        (ground(), {"thickest": 0.95}, "Transmissions"),
        (ground(), {"thinnest": 1.1}, "Transmissions"),
    ],
)
def test_exception_what_cannot_be_hazed(image, limits, said):
    with pytest.raises(ValueError, match=said):
        simulate(image, 0, **limits)
