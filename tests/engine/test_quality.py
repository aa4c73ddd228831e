"""PSNR and SSIM against a clear raster: formulas, whole-image computations, other grids, refusals."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from kestrel.engine.errors import EngineError
from kestrel.engine.events import Track
from kestrel.engine.quality import check_reference, compare
from kestrel.engine.scaling import Scaling
from kestrel.engine.scene import open_scene
from kestrel.tests.support import rasters
from kestrel.tests.support.jobs import Recorder
from scipy.ndimage import correlate

RGB = (1, 2, 3)


def picture(height=61, width=83, seed=0, dtype=np.uint8):
    """Return (3, H, W), 30..220: blobs and noise, so that SSIM has something to see."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (5 + b)) * np.cos(y / (7 - b)) for b in range(3)])
    return (125 + 60 * waves + rng.uniform(-30, 30, waves.shape)).astype(dtype)


def files(folder, *images, place="north_up", **profile):
    return [rasters.write(folder / f"{i}.tif", image, place, **profile) for i, image in enumerate(images)]


def assess(before, after, clear, rect=None, lows=(0,), highs=(255,), track=None, **settings):
    scene = open_scene(str(before), RGB)
    reference = check_reference(scene, str(clear), (), rect)
    scalings = [
        Scaling("given", low, high, "unit", "parameters")
        for low, high in zip(np.broadcast_to(lows, 3), np.broadcast_to(highs, 3), strict=True)
    ]
    track = track or Track(Recorder())
    found = compare(str(after), RGB, scene, reference, scalings, track, rect, **settings)
    return json.loads(json.dumps(found, allow_nan=False))


def wang(one, two, peak, valid=None):
    """SSIM of one band by the paper's sums, 11 x 11 weights at once, over windows without invalid pixels."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def mean(image):
        return correlate(image, weights, mode="constant")[5:-5, 5:-5]

    one, two = one.astype(float), two.astype(float)
    m1, m2 = mean(one), mean(two)
    v1, v2, cov = mean(one**2) - m1**2, mean(two**2) - m2**2, mean(one * two) - m1 * m2
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    ssim = (2 * m1 * m2 + c1) * (2 * cov + c2) / ((m1**2 + m2**2 + c1) * (v1 + v2 + c2))
    if valid is not None:
        ssim = ssim[correlate(valid.astype(int), np.ones((11, 11), int), mode="constant")[5:-5, 5:-5] == 121]
    return ssim.mean()


def test_oracle_identical_images(tmp_path):
    image = picture()
    found = assess(*files(tmp_path, picture(seed=1), image, image))
    assert found["output"]["mse"] == 0
    assert found["output"]["psnr"] is None
    assert found["output"]["ssim"] == 1
    assert found["input"]["psnr"] < 30
    assert found["input"]["ssim"] < 0.9
    assert found["pixels"] == image[0].size
    assert found["windows"] == (61 - 10) * (83 - 10)
    assert (found["units"], found["peak"], found["resampled"]) == ("8-bit DN", 255, False)


@pytest.mark.parametrize("offset", [1, 7, 25])
def test_oracle_constant_offset(tmp_path, offset):
    image = picture()
    found = assess(*files(tmp_path, image - offset, image + offset, image))
    for which in ("input", "output"):
        assert found[which]["psnr"] == pytest.approx(20 * np.log10(255 / offset), rel=1e-12)
        assert found[which]["psnr_bands"] == pytest.approx([20 * np.log10(255 / offset)] * 3, rel=1e-12)


def test_oracle_other_dtypes_in_stretched_units_without_clipping(tmp_path):
    clear = picture(dtype=np.int16) * 20
    before, after, reference = files(tmp_path, clear - 300, clear + 600, clear)
    lows, highs = (0, 500, 1000), (1000, 2500, 4000)  # many pixels lie beyond
    found = assess(before, after, reference, lows=lows, highs=highs)
    assert (found["units"], found["peak"]) == ("stretched units", 1)
    assert (found["lows"], found["highs"]) == (list(lows), list(highs))
    ranges = np.subtract(highs, lows)
    assert found["input"]["psnr_bands"] == pytest.approx(20 * np.log10(ranges / 300))
    assert found["output"]["mse"] == pytest.approx(np.mean((600 / ranges) ** 2))
    assert found["output"]["psnr"] == pytest.approx(-10 * np.log10(found["output"]["mse"]))
    units = [(image - np.reshape(lows, (3, 1, 1))) / ranges[:, None, None] for image in (clear + 600, clear)]
    assert found["output"]["ssim_bands"] == pytest.approx(
        [wang(*pair, 1) for pair in zip(*units, strict=True)]
    )


@pytest.mark.parametrize("rows", [61, 1, 7, 16])
@pytest.mark.parametrize("cols", [83, 20])
def test_oracle_blocks_of_any_size_equal_the_whole(tmp_path, rows, cols):
    before, after, clear = (picture(seed=s) for s in range(3))
    before[:, 10:14, 40:45] = after[:, 10:14, 40:45] = 0  # nodata
    clear[1, 50, 60] = 0
    found = assess(*files(tmp_path, before, after, clear, nodata=0), block=(rows, cols))
    valid = (before != 0).all(0) & (clear != 0).all(0)
    assert found["pixels"] == valid.sum()
    for which, image in (("input", before), ("output", after)):
        error = ((image.astype(float) - clear) ** 2)[:, valid]
        assert found[which]["mse"] == pytest.approx(error.mean(), rel=1e-12)
        assert found[which]["psnr"] == pytest.approx(10 * np.log10(255**2 / error.mean()), rel=1e-12)
        expected = [wang(a, b, 255, valid) for a, b in zip(image, clear, strict=True)]
        assert found[which]["ssim_bands"] == pytest.approx(expected, rel=1e-9)
        assert found[which]["ssim"] == pytest.approx(np.mean(expected), rel=1e-9)


def test_feature_an_output_of_a_part_and_a_reference_of_another_part(tmp_path):
    hazy, clear = picture(seed=1), picture()
    before = rasters.write(tmp_path / "before.tif", hazy)
    transform = rasters.PLACES["north_up"][1]
    after = rasters.write(
        tmp_path / "after.tif", clear[:, 20:50, 10:60], transform=transform * Affine.translation(10, 20)
    )
    moved = transform * Affine.translation(-4, 30) * Affine.translation(0.001, 0.001)  # rounded by a writer
    reference = rasters.write(
        tmp_path / "clear.tif", np.pad(clear, ((0, 0), (0, 0), (4, 0)))[:, 30:], transform=moved
    )
    found = assess(before, after, reference, rect=(20, 10, 30, 50))
    assert found["resampled"] is False
    assert found["pixels"] == 20 * 50  # rows 30 to 50
    assert found["output"]["mse"] == 0
    error = (hazy.astype(float) - clear)[:, 30:50, 10:60]
    assert found["input"]["mse"] == pytest.approx((error**2).mean())


def test_feature_only_wanted_pixels_count(tmp_path):
    before, after, clear = (picture(seed=s) for s in range(3))
    triangle = np.tri(61, 83, dtype=bool)
    found = assess(
        *files(tmp_path, before, after, clear),
        wanted=lambda r, c, h, w: triangle[r : r + h, c : c + w],
        block=(16, 32),
    )
    assert found["pixels"] == triangle.sum()
    error = ((after.astype(float) - clear) ** 2)[:, triangle]
    assert found["output"]["mse"] == pytest.approx(error.mean())


def plane(height, width, transform):
    """Return a plane in map coordinates, whose bilinear interpolation is exact, float32."""
    x, y = transform * (np.mgrid[:width, :height] + 0.5)
    values = 100 + ((x - rasters.ORIGIN[0]) / 20 - (y - rasters.ORIGIN[1]) / 30).T
    return np.stack([values, values + 10, values + 20]).astype(np.float32)


@pytest.mark.parametrize(
    "other",
    [
        Affine.translation(-7.5, -3.25),
        Affine.translation(-5, -5) * Affine.scale(2.5),
        Affine.translation(-5, -5) * Affine.scale(0.5),
        Affine.translation(-30, 20) * Affine.rotation(-30),
    ],
)
def test_oracle_another_grid_is_resampled_onto_the_output(tmp_path, other):
    transform = rasters.PLACES["north_up"][1]
    image = plane(40, 50, transform)
    before, after = files(tmp_path, image + 8, image)
    fine = transform * other
    clear = rasters.write(tmp_path / "clear.tif", plane(150, 150, fine), transform=fine)
    found = assess(before, after, clear, lows=(0,), highs=(200,), block=(16, 32))
    assert found["resampled"] is True
    assert any("resampled" in note for note in found["notes"])
    assert found["pixels"] > 1000
    # float32's own rounding; at a border across the grid GDAL weights the pixels that it has
    assert found["output"]["psnr"] > (100 if other.is_rectilinear else 70)
    assert found["input"]["psnr"] == pytest.approx(20 * np.log10(200 / 8), abs=1e-3)
    assert found["output"]["ssim"] == pytest.approx(1, abs=1e-6 if other.is_rectilinear else 1e-4)


@pytest.mark.parametrize("scale", [0.4, 1.0])
@pytest.mark.parametrize("west", [15.0, 179.998])  # the latter across the antimeridian
def test_oracle_degrees_on_degrees(tmp_path, west, scale):
    transform = Affine(1e-4, 0, west, 0, -1e-4, 45)
    fine = transform * Affine.translation(-3, -3) * Affine.scale(scale)

    def image(height, width, place):
        x, y = place * (np.mgrid[:width, :height] + 0.5)
        one = 100 + 1e4 * ((x - west) - (y - 45)).T
        return np.stack([one, one / 2, one / 3]).astype(np.float32)

    clear = image(150, 160, fine)
    fine = Affine.translation(-360 if west > 100 else 0, 0) * fine  # the same places by another name
    before, after = files(tmp_path, *[image(40, 50, transform)] * 2, place="degrees", transform=transform)
    path = rasters.write(tmp_path / "clear.tif", clear, "degrees", transform=fine)
    reference = check_reference(open_scene(str(before), RGB), str(path))
    assert reference.finer == pytest.approx(1 / scale)
    found = assess(before, after, path, lows=(0,), highs=(200,), block=(16, 16))
    assert found["pixels"] == 40 * 50
    assert found["output"]["mse"] < 1e-8


def test_feature_a_shift_below_a_pixel_is_reported(tmp_path):
    before, after = files(tmp_path, picture(), picture())
    transform = rasters.PLACES["north_up"][1] * Affine.translation(0.3, -0.2)
    clear = rasters.write(tmp_path / "clear.tif", picture(), transform=transform)
    found = assess(before, after, clear)
    assert found["resampled"] is True
    assert found["shift_px"] == pytest.approx([-0.3, 0.2], abs=1e-6)


def test_oracle_another_crs(tmp_path):
    """A UTM reference under a degree raster: a smooth function of longitude and latitude survives."""
    from pyproj import Transformer

    crs, transform = rasters.PLACES["degrees"]
    x, y = transform * (np.mgrid[:60, :50] + 0.5)
    lonlat = np.stack([((x - 15) * 2e4).T, ((y - 45) * 2e4).T, ((x + y - 60) * 1e4).T]) + 100
    before, after = files(tmp_path, lonlat.astype(np.float32) + 5, lonlat.astype(np.float32), place="degrees")
    place = Affine(10, 0, 499_900, 0, -10, 4_983_100)
    x, y = place * (np.mgrid[:120, :120] + 0.5)
    lon, lat = Transformer.from_crs(rasters.UTM, crs, always_xy=True).transform(x.T, y.T)
    clear = np.stack([(lon - 15) * 2e4, (lat - 45) * 2e4, (lon + lat - 60) * 1e4]) + 100
    reference = rasters.write(tmp_path / "clear.tif", clear.astype(np.float32), transform=place)
    found = assess(before, after, reference, lows=(0,), highs=(200,), block=(16, 16))
    assert found["resampled"] is True
    assert found["pixels"] > 2000
    # GDAL may be 0.125 pixels off: 0.2 units; 5 units are to be seen
    assert found["output"]["psnr"] > 20 * np.log10(200 / 0.5)
    assert found["input"]["psnr"] == pytest.approx(20 * np.log10(200 / 5), abs=0.5)


@pytest.mark.parametrize("way", ["nan", "nodata", "one_band", "mask"])
def test_feature_invalid_pixels_of_a_resampled_reference(tmp_path, way):
    """No invalid value leaks into the comparison, whichever way it is marked."""
    transform = rasters.PLACES["north_up"][1]
    image = plane(40, 50, transform)
    before, after = files(tmp_path, image, image)
    fine = transform * Affine.translation(-0.5, -0.5)
    clear = plane(60, 60, fine)
    hole = np.s_[10:20, 10:30]
    profile = {}
    if way == "nan":
        clear[:, *hole] = np.nan
    elif way == "mask":
        clear[:, *hole] = 1e6
    else:
        profile["nodata"] = -9999
        clear[1 if way == "one_band" else slice(None), *hole] = -9999
    path = rasters.write(tmp_path / "clear.tif", clear, transform=fine, **profile)
    if way == "mask":
        mask = np.full(clear.shape[1:], 255, np.uint8)
        mask[hole] = 0
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(mask)
    found = assess(before, after, path, lows=(0,), highs=(200,))
    assert 40 * 50 - 11 * 21 <= found["pixels"] <= 40 * 50 - 9 * 19
    # next to a hole GDAL weights what it has, up to a pixel (0.5 units a column) off
    assert found["output"]["psnr"] > 20 * np.log10(200 / 0.5)


def test_feature_pictures_without_any_georeference(tmp_path):
    image = picture()
    paths = files(tmp_path, picture(seed=1), image, place="bare")
    png = tmp_path / "clear.png"
    with rasterio.open(png, "w", driver="PNG", count=3, height=61, width=83, dtype="uint8") as dataset:
        dataset.write(image)
    assert assess(*paths, png)["output"]["mse"] == 0


def test_feature_scale_tags_bring_a_reference_to_the_input(tmp_path):
    reflectance = picture(dtype=float) / 250
    before, after = files(tmp_path, *[np.rint((reflectance - 0.1) / 1e-4).astype(np.int16)] * 2)
    with rasterio.open(before, "r+") as dataset:
        dataset.scales, dataset.offsets = (1e-4,) * 3, (0.1,) * 3
    clear = rasters.write(tmp_path / "clear.tif", reflectance.astype(np.float32))
    found = assess(before, after, clear, lows=(0,), highs=(10_000,))
    assert found["output"]["psnr"] > 85  # rounding to 1e-4: 20 log10(1 / 2.9e-5) is 91
    assert any("scale tags" in note for note in found["notes"])


def test_feature_nothing_valid_in_common(tmp_path):
    image = picture()
    empty = np.zeros_like(image)
    found = assess(*files(tmp_path, image, image, empty, nodata=0))
    assert found["pixels"] == found["windows"] == 0
    assert found["output"] == {
        "mse": None, "psnr": None, "ssim": None, "psnr_bands": [None] * 3, "ssim_bands": [None] * 3,
    }  # fmt: skip
    assert any("No pixel is valid" in note for note in found["notes"])


def test_feature_a_raster_smaller_than_a_window_has_psnr_only(tmp_path):
    image = picture(8, 30)
    found = assess(*files(tmp_path, image, image + 5, image))
    assert found["output"]["psnr"] == pytest.approx(20 * np.log10(255 / 5))
    assert found["output"]["ssim"] is None


def test_exception_references_that_do_not_fit(tmp_path):
    image = picture()
    scene = rasters.write(tmp_path / "scene.tif", image)
    far = rasters.PLACES["north_up"][1] * Affine.translation(1000, 0)
    twins = {
        "does not overlap": rasters.write(tmp_path / "far.tif", image, transform=far),
        "has no CRS": rasters.write(tmp_path / "no_crs.tif", image, "no_crs"),
        "is uint16 and": rasters.write(tmp_path / "uint16.tif", image.astype(np.uint16)),
        "has 1 band": rasters.write(tmp_path / "grey.tif", image[0]),
        "control points": rasters.write_gcps(tmp_path / "gcps.tif", image[0], rasters.gcps(61, 83)),
    }
    opened = open_scene(str(scene), RGB)
    for text, path in twins.items():
        bands = (1, 1, 1) if "gcps" in path.name else ()
        with pytest.raises(EngineError, match=text) as caught:
            check_reference(opened, str(path), bands)
        assert path.name in caught.value.message
    with pytest.raises(EngineError, match="1 bands of REFERENCE"):
        check_reference(opened, str(scene), (1,))
    with pytest.raises(EngineError, match=r"REFERENCE: .* there is no band 4"):
        check_reference(opened, str(scene), (1, 2, 4))
    bare = rasters.write(tmp_path / "bare.tif", image, "bare")
    small = rasters.write(tmp_path / "small.tif", image[:, :50], "bare")
    with pytest.raises(EngineError, match="has 83 x 50 pixels"):
        check_reference(open_scene(str(bare), RGB), str(small))
    overlapping = rasters.write(tmp_path / "corner.tif", image, transform=far * Affine.translation(-950, 0))
    check_reference(opened, str(overlapping))
    with pytest.raises(EngineError, match="does not overlap"):
        check_reference(opened, str(overlapping), (), (0, 0, 61, 50))


def test_feature_bands_are_chosen_by_the_input_s_rule(tmp_path):
    image = picture()
    before, after = files(tmp_path, image, image)
    clear = rasters.write(
        tmp_path / "clear.tif", np.concatenate([image[:1] // 2, image[::-1]]), photometric="minisblack"
    )
    with rasterio.open(clear, "r+") as dataset:
        dataset.descriptions = ("nir", "blue", "green", "red")
    found = assess(before, after, clear)
    assert found["reference_bands"] == [4, 3, 2]
    assert found["output"]["mse"] == 0


def test_fault_a_truncated_reference_costs_its_figures_only(tmp_path):
    before, after, clear = files(tmp_path, *[picture(300, 200)] * 3)
    clear.write_bytes(clear.read_bytes()[:90_000])
    track = Track(Recorder())
    found = assess(before, after, clear, track=track, block=(64, 200))
    assert found["output"]["psnr"] is None
    assert found["pixels"] == 0
    assert "2.tif cannot be read" in track.warnings[0]
    after.write_bytes(after.read_bytes()[:90_000])
    with pytest.raises(EngineError, match=r"1.tif cannot be read"):
        assess(before, after, before, block=(64, 200))
