"""The script that gives pictures of change an invented place."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from kestrel.scripts.georeference_change_pair import INVENTED, georeference

ROOT = Path(__file__).resolve().parent.parent


def picture(path, bands=3, size=(30, 40), seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (bands, *size), np.uint8)
    with rasterio.open(
        path, "w", driver="PNG", count=bands, height=size[0], width=size[1], dtype="uint8"
    ) as dataset:
        dataset.write(values)
    return path, values


def test_feature_pixels_stay_and_the_place_is_the_one_asked_for(tmp_path):
    before, one = picture(tmp_path / "a.png")
    after, two = picture(tmp_path / "b.png", bands=4, seed=1)  # with alpha
    mask, true = picture(tmp_path / "m.png", bands=1, seed=2)
    made = georeference(
        before, after, tmp_path / "out", gsd=1.5, epsg=32634, origin=(3e5, 5e6), mask=mask,
        dates=("2005-06-07", "2010-01-02"),
    )  # fmt: skip
    assert [path.name for path in made] == ["before.tif", "after.tif", "change.tif"]
    days = "2005:06:07 00:00:00", "2010:01:02 00:00:00", None
    for path, wanted, day in zip(made, (one, two[:3], true), days, strict=True):
        with rasterio.open(path) as dataset:
            assert (dataset.read() == wanted).all()
            assert dataset.transform == Affine(1.5, 0, 3e5, 0, -1.5, 5e6)
            assert dataset.crs.to_epsg() == 32634
            assert dataset.tags()["TIFFTAG_IMAGEDESCRIPTION"] == INVENTED
            assert dataset.tags().get("TIFFTAG_DATETIME") == day


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"gsd": 0}, "GSD is 0 m"),
        ({"gsd": 1, "epsg": 4326}, "EPSG:4326 is no UTM zone"),
        ({"gsd": 1, "dates": ("2012", "2013-01-01")}, "2012 is no date"),
    ],
)
def test_exception_what_does_not_fit(tmp_path, more, message):
    before, _ = picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        georeference(before, before, tmp_path / "out", **more)
    other, _ = picture(tmp_path / "b.png", size=(30, 41))
    with pytest.raises(ValueError, match=r"a\.png 40 x 30, b\.png 41 x 30"):
        georeference(before, other, tmp_path / "out", gsd=1)
    assert not (tmp_path / "out").exists()


def test_smoke_command_says_that_the_place_is_invented(tmp_path):
    before, _ = picture(tmp_path / "a.png")
    script = [sys.executable, ROOT / "scripts" / "georeference_change_pair.py"]
    done = subprocess.run(
        [*script, before, before, tmp_path / "out", "--gsd", "0.5"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("position invented") == 2
    told = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True).stdout
    assert "THE POSITION IS INVENTED" in told
    failed = subprocess.run(
        [*script, before, tmp_path / "gone.png", tmp_path / "out", "--gsd", "0.5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert failed.returncode == 1
    assert "gone.png" in failed.stderr
    assert "Traceback" not in failed.stderr
