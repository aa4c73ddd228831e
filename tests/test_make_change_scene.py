"""The made-up suburb: two dates on one grid, and outlines of just what differs between the towns."""

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from kestrel.scripts import make_change_scene as script


def test_oracle_outlines_are_where_the_dates_differ(tmp_path):
    script.write(tmp_path, 3, 360)
    with rasterio.open(tmp_path / "before.tif") as one, rasterio.open(tmp_path / "after.tif") as two:
        assert (one.transform, one.crs, one.shape) == (two.transform, two.crs, two.shape)
        assert one.tags()["SIMULATED"] == "YES"
        assert (one.tags()["TIFFTAG_DATETIME"][:4], two.tags()["TIFFTAG_DATETIME"][:4]) == ("2012", "2020")
        before, after = one.read().astype(float), two.read().astype(float)
    *_, change = script.draw(3, 360)
    _, _, wkb, _ = pyogrio.raw.read(tmp_path / "change.gpkg")
    outlines = shapely.from_wkb(wkb)
    assert shapely.area(outlines).sum() == pytest.approx(change.sum() * script.GSD**2)
    assert 0.01 < change.mean() < 0.3
    difference = np.abs(after - before).mean(axis=0)
    assert difference[change].mean() > 3 * difference[~change].mean()


def test_smoke_the_same_seed_draws_the_same():
    for one, two in zip(script.draw(1, 200), script.draw(1, 200), strict=True):
        assert (one == two).all()
