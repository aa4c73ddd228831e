"""The report on a restored raster: every figure in it, pictures that open, nothing unescaped."""

import base64
import io
import json
import re

import numpy as np
import pytest
from kestrel.engine.raster_report import NODATA, PICTURE_BYTES, write_report
from kestrel.engine.raster_tally import Tally
from kestrel.tests.support.pages import Page
from matplotlib.image import imread


def images(shape=(60, 80), bands=3, dtype=np.uint8, seed=0):
    """Return (before, after, valid): noise, brighter by 40 in the upper half, a corner without data."""
    before = np.random.default_rng(seed).integers(20, 200, (bands, *shape)).astype(dtype)
    after = before.copy()
    after[:, : shape[0] // 2] += 40
    valid = np.ones(shape, bool)
    valid[:10, :20] = False
    return before, after, valid


def tally_of(before, after, valid, low=0, high=255):
    tally = Tally(*valid.shape, (low,), (high,))
    tally.add(0, 0, before, after, valid)
    return tally


def figures(tally, bands=(4, 3, 2), **more):
    """Return what a run reports, for a 80 x 60 output."""
    return {
        "inputs": [{"path": "/data/<b>hazy & 'wet'.tif", "size": 14400, "modified": "2026-01-01"}],
        "size": [80, 60],
        "model": {"name": "toy", "id": "toy@abc"},
        "versions": {"kestrel": "9.9"},
        "bands": list(bands),
        "stretch": {"low": [0.0] * len(bands), "high": [255.0] * len(bands), "source": "data type"},
        "params_used": {"omega": 0.95, "bands": list(bands), "other_bands": "copy"},
        "seconds": {"prepare": 0.5, "predict": 2.0, "tiles": 3.0, "writing": 1.8},
        "valid_pixels": 4600,
        "invalid_pixels": 200,
        "tiles_total": 6,
        "tally": None if tally is None else tally.figures(),
        **more,
    }  # fmt: skip


def written(path, tally, warnings=(), **more):
    given = figures(tally, **more)
    json.dumps(given, allow_nan=False)
    write_report(path, given, tally, warnings)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return page, text


def pictures(page):
    """Return the decoded pictures, floats 0..1 (h, w, 3), and their sizes in bytes."""
    found, sizes = [], []
    for link in page.links:
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", link).groups()
        data = base64.b64decode(data)
        image = imread(io.BytesIO(data), format=kind)[..., :3]
        found.append(image / 255 if image.dtype == np.uint8 else image)
        sizes.append(len(data))
    return found, sizes


def cells(text, row):
    """Return the cells of the table row that starts with a text."""
    found = re.search(rf"<tr><td>{re.escape(row)}</td>(.*?)</tr>", text)
    return re.findall(r"<td[^>]*>(.*?)</td>", found[1])


def test_smoke_everything_is_there_and_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    page, text = written(tmp_path / "r.html", tally_of(*images()), [evil])
    assert "b" not in page.tags
    assert "script" not in page.tags
    assert evil in page.texts
    assert "<b>hazy & 'wet'.tif, before and after" in page.texts
    headings = [
        "Before and after", "What changed", "Warnings", "Bands", "Haze, contrast, detail", "Pixels and tiles",
        "Stretch", "Parameters as used", "Seconds by stage", "Made with",
    ]  # fmt: skip
    assert [heading for heading in headings if heading not in page.texts] == []
    assert all(link.startswith("data:image/") for link in page.links)
    assert cells(text, "bands") == ["4, 3, 2"]
    assert cells(text, "all, for each Mpx of output") == ["1000"]  # 4.8 s for 0.0048 Mpx
    assert cells(text, "predict (within tiles)") == ["2"]
    assert cells(text, "red (band 4)") != cells(text, "green (band 3)")


def test_oracle_numbers_of_bands(tmp_path):
    before, after, valid = images()
    before[0, 59, :46] = 0  # 1 % of the valid pixels
    after[0, 59, :46] = 0
    _, text = written(tmp_path / "r.html", tally_of(before, after, valid))
    row = [float(cell) for cell in cells(text, "red (band 4)")]
    expected = [f(i[0][valid].astype(float)) for f in (np.mean, np.std) for i in (before, after)]
    assert row == pytest.approx([*expected, 1, 1, 1, 1], rel=1e-5)


def test_oracle_pictures_show_the_stretch_and_the_change(tmp_path):
    before, after, valid = images(dtype=np.int16)
    before[:, :, 40:], after[:, :, 40:] = 100, 100
    after[:, :30, 40:] = 149
    low, high = 51, 149
    page, _ = written(tmp_path / "r.html", tally_of(before, after, valid, low, high))
    found, sizes = pictures(page)
    assert max(sizes) < PICTURE_BYTES
    for image, raw in zip(found[:2], (before, after), strict=True):
        assert image.shape == (60, 80, 3)
        assert np.allclose(image[:10, :20], NODATA, atol=0.5 / 255 + 1e-6)
        for row in (5, 55):
            expected = (raw[0, row, 60] - low) / (high - low)
            assert np.allclose(image[row, 60], expected, atol=0.5 / 255 + 1e-6)
    change = found[2]
    height, width = change.shape[:2]
    upper, lower = change[height // 4, width * 3 // 4], change[height * 6 // 10, width * 3 // 4]
    assert upper[0] > max(upper[1:]) + 0.2  # brighter: red
    assert np.ptp(lower) < 0.1  # unchanged: white
    assert lower.min() > 0.85


def test_feature_pictures_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 255, (2, 3, 700, 700), dtype=np.uint8)  # noise: the worst for JPEG
    page, _ = written(tmp_path / "r.html", tally_of(before, after, np.ones((700, 700), bool)))
    assert max(pictures(page)[1]) < PICTURE_BYTES


def quality(mse, **more):
    psnr = 10 * np.log10(255**2 / mse) if mse else None
    side = {"mse": mse, "psnr": psnr, "ssim": 0.5, "psnr_bands": [psnr] * 3, "ssim_bands": [0.4, 0.5, 0.6]}
    return {
        "reference": "/data/<clear>.tif", "reference_bands": [1, 2, 3], "units": "8-bit DN",
        "peak": 255.0, "lows": [0.0, 1, 2], "highs": [255.0, 9, 8], "pixels": 77, "windows": 66,
        "input": side | {"psnr": 12.25, "mse": 9.0}, "output": side, "notes": ["A note."], **more,
    }  # fmt: skip


def test_feature_quality_with_units_and_reference(tmp_path):
    tally = tally_of(*images())
    page, text = written(tmp_path / "r.html", tally, quality=quality(25.5))
    assert cells(text, "all bands") == ["12.25", f"{10 * np.log10(255**2 / 25.5):.6g}", "0.5", "0.5"]
    assert cells(text.split("Against the reference")[1], "blue (band 2)")[2:] == ["0.6", "0.6"]
    told = next(line for line in page.texts if "/data/<clear>.tif" in line)
    assert "8-bit digital numbers with a peak of 255" in told
    assert "A note." in page.texts
    page, text = written(tmp_path / "r.html", tally, quality=quality(0, units="stretched units", peak=1.0))
    assert cells(text, "all bands")[1] == "infinite"
    told = next(line for line in page.texts if "/data/<clear>.tif" in line)
    assert "red (band 4) 0 to 255, green (band 3) 1 to 9, blue (band 2) 2 to 8" in told


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (300, 2)])
def test_shape_any_raster_and_number_of_bands(tmp_path, shape, dtype):
    before = np.full((2, *shape), 100, dtype)
    page, text = written(
        tmp_path / "r.html", tally_of(before, before, np.ones(shape, bool)), bands=(1, 5), size=[*shape[::-1]]
    )
    assert page.tags.count("img") == 4
    assert cells(text, "band 5")[:2] == ["100", "100"]


def test_feature_nothing_valid_and_no_tally(tmp_path):
    before, after, valid = images()
    page, _ = written(tmp_path / "r.html", tally_of(before, after, valid & False))
    assert "img" not in page.tags
    assert any("No pixel is valid" in text for text in page.texts)
    page, _ = written(tmp_path / "r.html", None)
    assert "img" not in page.tags
    assert "Parameters as used" in page.texts
