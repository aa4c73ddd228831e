"""Validity: the union of everything that says 'no data here', for the chosen band only."""

import numpy as np
import pytest
import rasterio
from kestrel.engine.scene import open_scene
from kestrel.tests.support import rasters
from rasterio.enums import ColorInterp

RAMP = np.arange(1, 201, dtype=np.uint8).reshape(10, 20)


def read(path, band=1):
    scene = open_scene(str(path), band)
    with scene.reader() as reader:
        return reader.read(0, 0, scene.height, scene.width)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "int32", "float32", "float64"])
def test_feature_declared_nodata(tmp_path, dtype):
    values, valid = read(rasters.write(tmp_path / "a.tif", RAMP.astype(dtype), nodata=7))
    assert (valid == (RAMP != 7)).all()
    assert values.dtype == dtype


@pytest.mark.parametrize("nodata", [0, 255])
def test_feature_nodata_at_the_ends_of_uint8(tmp_path, nodata):
    image = RAMP.copy()
    image[3, 4] = nodata
    _, valid = read(rasters.write(tmp_path / "a.tif", image, nodata=nodata))
    assert np.argwhere(~valid).tolist() == [[3, 4]]


def test_feature_int8(tmp_path):
    image = (RAMP.astype(np.int16) - 100).astype(np.int8)
    _, valid = read(rasters.write(tmp_path / "a.tif", image, nodata=-99))
    assert np.argwhere(~valid).tolist() == [[0, 0]]


def test_feature_impossible_nodata_is_no_nodata(tmp_path):
    rasters.write(tmp_path / "source.tif", RAMP)
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="10"><VRTRasterBand dataType="Byte" band="1">'
        '<NoDataValue>-9999</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">source.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    values, valid = read(tmp_path / "a.vrt")
    assert valid.all()
    assert (values == RAMP).all()


@pytest.mark.parametrize("declared", [None, float("nan"), -9999.0, -3.4028234663852886e38])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_feature_nan_infinity_and_absurd_values_are_invalid_in_any_case(tmp_path, dtype, declared):
    image = RAMP.astype(dtype)
    image[0, :6] = [np.nan, np.inf, -np.inf, 1e38, -3.4028235e38, 9.96921e36]
    if declared is not None:
        image[5, 5] = declared
    _, valid = read(rasters.write(tmp_path / "a.tif", image, nodata=declared))
    wrong = np.zeros(RAMP.shape, bool)
    wrong[0, :6] = True
    wrong[5, 5] = declared is not None
    assert (valid == ~wrong).all()


def test_feature_nodata_differs_per_band(tmp_path):
    rasters.write(tmp_path / "one.tif", RAMP)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{b}"><NoDataValue>{b * 10}</NoDataValue><SimpleSource>'
        '<SourceFilename relativeToVRT="1">one.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for b in (1, 2)
    )
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="20" rasterYSize="10">{bands}</VRTDataset>')
    for band in (1, 2):
        _, valid = read(tmp_path / "a.vrt", band)
        assert (valid == (RAMP != band * 10)).all()


@pytest.mark.parametrize("nodata", [None, 9])
def test_feature_alpha_and_nodata_are_united(tmp_path, nodata):
    alpha = np.full(RAMP.shape, 255, np.uint8)
    alpha[2, 3] = 0
    path = rasters.write(tmp_path / "a.tif", np.stack([RAMP, alpha]), photometric="MINISBLACK", alpha="YES",
                         nodata=nodata)  # fmt: skip
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[1] == ColorInterp.alpha
    _, valid = read(path)
    expected = (RAMP != 9) if nodata else np.ones(RAMP.shape, bool)
    expected[2, 3] = False
    assert (valid == expected).all()


@pytest.mark.parametrize("internal", [True, False])
def test_feature_mask_band_and_nodata_are_united(tmp_path, internal):
    path = rasters.write(tmp_path / "a.tif", RAMP, nodata=9)
    mask = np.full(RAMP.shape, 255, np.uint8)
    mask[7, 1] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() != internal
    _, valid = read(path)
    assert (valid == ((RAMP != 9) & (mask > 0))).all()


def test_feature_other_bands_do_not_matter(tmp_path):
    other = np.full(RAMP.shape, np.nan, np.float32)
    path = rasters.write(tmp_path / "a.tif", np.stack([RAMP.astype(np.float32), other]))
    assert read(path, 1)[1].all()
    assert not read(path, 2)[1].any()
