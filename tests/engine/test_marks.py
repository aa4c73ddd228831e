"""Marks: what says "no data" in the output, read back by GDAL's own masks."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kestrel.engine.errors import EngineError
from kestrel.engine.marks import (
    CLASSES_NODATA,
    LATE_NODATA,
    SCORES_NODATA,
    MarkCounts,
    Marks,
    class_marks,
    plan_marks,
    score_marks,
)
from kestrel.engine.scene import open_scene
from kestrel.engine.validity import ABSURD
from kestrel.tests.support import rasters
from rasterio.io import MemoryFile

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")
RAMP = np.arange(200, dtype=np.uint8).reshape(10, 20)


def whole(path, numbers):
    """Plan and apply the marks of an unchanged copy: (marks, input values, values, valid, counts)."""
    scene = open_scene(str(path), numbers)
    with scene.reader() as reader:
        values, valid = reader.read_bands(0, 0, scene.height, scene.width, numbers)
    marks = plan_marks(scene, numbers)
    out = values.copy()
    return marks, values, out, valid, marks.apply(out, valid)


def shown(values, marks, counts, valid=None):
    """Write to GDAL's memory and return its masks, bool (C, h, w)."""
    nodata = counts.value if counts.needed else marks.nodata
    count, height, width = values.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        MemoryFile() as memory,
    ):
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, nodata=nodata
        ) as dataset:
            dataset.write(values)
            if marks.mask:
                dataset.write_mask(marks.mask_of(valid))
        with memory.open() as dataset:
            return dataset.read_masks() != 0


def vrt(path, dtypes, nodata, mask_bands=False):
    """Write a VRT over one.tif with a nodata value per band, or a mask per band from further bands."""

    def band(number, dtype, inner, attributes=""):
        source = (
            f'<SourceFilename relativeToVRT="1">one.tif</SourceFilename><SourceBand>{number}</SourceBand>'
        )
        body = f"{inner}<SimpleSource>{source}</SimpleSource>"
        return f'<VRTRasterBand dataType="{dtype}" {attributes}>{body}</VRTRasterBand>'

    text = ""
    for number, (dtype, value) in enumerate(zip(dtypes, nodata, strict=True), 1):
        inner = "" if value is None else f"<NoDataValue>{value}</NoDataValue>"
        if mask_bands:
            inner += f"<MaskBand>{band(number + len(nodata), 'Byte', '')}</MaskBand>"
        text += band(number, dtype, inner, f'band="{number}"')
    path.write_text(f'<VRTDataset rasterXSize="20" rasterYSize="10">{text}</VRTDataset>')
    return path


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
def test_feature_one_declared_nodata_is_kept(tmp_path, dtype):
    image = np.stack([RAMP % 100, RAMP % 50]).astype(dtype)
    path = rasters.write(tmp_path / "a.tif", image, nodata=7)
    marks, before, after, valid, counts = whole(path, (1, 2))
    assert marks.nodata == 7
    assert (after == before).all()
    assert counts == MarkCounts()
    assert (shown(after, marks, counts) == valid).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_feature_nan_nodata_stays_nan(tmp_path, dtype):
    image = RAMP.astype(dtype)
    image[0, :3] = [np.nan, np.inf, 1e31]
    marks, _, after, valid, counts = whole(
        rasters.write(tmp_path / "a.tif", image, nodata=float("nan")), (1,)
    )
    assert np.isnan(marks.nodata)
    assert np.isnan(after[0, 0, :3]).all()
    assert counts.foreign == 2
    assert not counts.needed
    assert (after[valid] == image[None][valid]).all()
    assert (shown(after, marks, counts) == valid).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_feature_nan_and_infinity_become_the_declared_nodata(tmp_path, dtype):
    image = RAMP.astype(dtype)
    image[0, :5] = [np.nan, np.inf, -np.inf, 1e30, -9999]
    marks, _, after, valid, counts = whole(rasters.write(tmp_path / "a.tif", image, nodata=-9999), (1,))
    assert (after[0, 0, :5] == -9999).all()
    assert counts == MarkCounts(foreign=4)
    assert valid.sum() == 195
    assert (shown(after, marks, counts) == valid).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_feature_floats_without_nodata_declare_one_only_when_a_pixel_needs_it(tmp_path, dtype):
    image = RAMP.astype(dtype)
    marks, _, after, _, counts = whole(rasters.write(tmp_path / "a.tif", image), (1,))
    assert marks.nodata is None
    assert not counts.needed
    assert (after == image).all()
    image[2, 3] = np.nan
    marks, _, after, valid, counts = whole(rasters.write(tmp_path / "b.tif", image), (1,))
    assert marks.nodata is None
    assert counts == MarkCounts(foreign=1, needed=True)
    assert counts.value == after[0, 2, 3] == np.finfo("float32").min
    assert (shown(after, marks, counts) == valid).all()


def test_feature_counts_of_windows_add_up():
    total = MarkCounts(moved=1)
    total.merge(MarkCounts(moved=2, foreign=3, needed=True))
    total.merge(MarkCounts(foreign=1))
    assert total == MarkCounts(moved=3, foreign=4, needed=True)
    assert total.value == LATE_NODATA


def test_feature_bands_with_different_nodata_share_the_first(tmp_path):
    image = np.stack([RAMP, RAMP])
    rasters.write(tmp_path / "one.tif", image)
    path = vrt(tmp_path / "a.vrt", ("Byte", "Byte"), (10, 20))
    marks, before, after, valid, counts = whole(path, (1, 2))
    assert marks.nodata == 10
    assert (after[0] == before[0]).all()
    assert after[1][RAMP == 20] == 10
    assert after[1][RAMP == 10] == 11  # valid there, so it steps aside
    assert counts.moved == 1
    others = (RAMP != 10) & (RAMP != 20)
    assert (after[1][others] == RAMP[others]).all()
    assert (shown(after, marks, counts) == valid).all()
    assert plan_marks(open_scene(str(path), 1), (2, 1)).nodata == 20


def test_feature_the_first_band_that_has_a_nodata_counts(tmp_path):
    rasters.write(tmp_path / "one.tif", np.stack([RAMP, RAMP]))
    path = vrt(tmp_path / "a.vrt", ("Byte", "Byte"), (None, 0))
    marks, _, after, valid, counts = whole(path, (1, 2))
    assert marks.nodata == 0
    assert after[:, 0, 0].tolist() == [1, 0]
    assert (shown(after, marks, counts) == valid).all()


@pytest.mark.parametrize("declared", [-9999, 256, 0.5, "nan"])
def test_feature_impossible_nodata_is_not_declared(tmp_path, declared):
    rasters.write(tmp_path / "one.tif", RAMP)
    marks, before, after, _, counts = whole(vrt(tmp_path / "a.vrt", ("Byte",), (declared,)), (1,))
    assert marks.nodata is marks.late is None
    assert counts == MarkCounts()
    assert (after == before).all()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_feature_integers_without_nodata_get_none(tmp_path, dtype):
    marks, before, after, valid, counts = whole(
        rasters.write(tmp_path / "a.tif", (RAMP % 100).astype(dtype)), (1,)
    )
    assert (marks.nodata, marks.late, marks.mask) == (None, None, False)
    assert counts == MarkCounts()
    assert valid.all()
    assert (after == before).all()


@pytest.mark.parametrize(("nodata", "moved"), [(0, 1), (255, 254), (100, 101)])
def test_feature_a_valid_value_steps_to_the_nearest_other(nodata, moved):
    marks = Marks(np.dtype("uint8"), nodata, (nodata,))
    values = np.array([[[nodata, nodata, 5]]], np.uint8)
    counts = marks.apply(values, np.array([[[True, False, True]]]))
    assert values.tolist() == [[[moved, nodata, 5]]]
    assert counts == MarkCounts(moved=1)


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("nodata", [None, 9])
def test_feature_masked_pixels_keep_their_values_and_the_output_a_mask(tmp_path, internal, nodata):
    path = rasters.write(tmp_path / "a.tif", np.stack([RAMP, RAMP // 2]), nodata=nodata)
    mask = np.full(RAMP.shape, 255, np.uint8)
    mask[7] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    marks, before, after, valid, _ = whole(path, (1, 2))
    assert marks.mask
    assert (after[:, 7] == before[:, 7]).all()
    assert (marks.mask_of(valid) == (mask > 0)).all()
    assert (after == before).all()


def test_feature_a_pixel_without_any_value_is_masked_too(tmp_path):
    image = np.stack([RAMP, RAMP])
    image[1, 0, 5] = 9
    path = rasters.write(tmp_path / "a.tif", image, nodata=9)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.full(RAMP.shape, 255, np.uint8))
    marks, _, after, valid, counts = whole(path, (1, 2))
    masks = shown(after, marks, counts, valid)
    assert not masks[:, RAMP == 9].any()  # both bands lack it
    assert masks[:, 0, 5].all()  # only one does: there the value speaks
    assert after[1, 0, 5] == 9


def test_feature_masks_per_band_are_intersected(tmp_path):
    masks = np.full((2, *RAMP.shape), 255, np.uint8)
    masks[0, 1] = 0
    masks[1, 2] = 0
    rasters.write(tmp_path / "one.tif", np.concatenate([np.stack([RAMP, RAMP]), masks]))
    path = vrt(tmp_path / "a.vrt", ("Byte", "Byte"), (None, None), mask_bands=True)
    marks, before, after, valid, counts = whole(path, (1, 2))
    assert (valid == (masks > 0)).all()
    assert (shown(after, marks, counts, valid)[0] == valid.all(axis=0)).all()
    assert (after == before).all()


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_feature_alpha_is_passed_through(tmp_path, nodata):
    alpha = np.full(RAMP.shape, 255, np.uint8)
    alpha[3] = 0
    path = rasters.write(
        tmp_path / "a.tif", np.stack([RAMP, alpha]), photometric="MINISBLACK", alpha="YES", nodata=nodata
    )
    marks, before, after, valid, _ = whole(path, (1, 2))
    assert marks.alpha == (1,)
    assert not marks.mask
    assert (after == before).all()
    assert (valid[0] == ((alpha > 0) & (RAMP != nodata))).all()


def test_feature_alpha_that_is_left_out_becomes_a_mask(tmp_path):
    alpha = np.full(RAMP.shape, 255, np.uint8)
    alpha[3] = 0
    path = rasters.write(tmp_path / "a.tif", np.stack([RAMP, alpha]), photometric="MINISBLACK", alpha="YES")
    marks, _, after, valid, counts = whole(path, (1,))
    assert marks.mask
    assert (shown(after, marks, counts, valid)[0] == (alpha > 0)).all()


def test_feature_large_64_bit_nodata_becomes_one_that_can_be_written(tmp_path):
    # rasterio cannot write such a file, so the plan is asked for what it would make of it
    least = np.iinfo("int64").min
    image = np.array([[least, -(2**53), 5]])
    scene = open_scene(str(rasters.write(tmp_path / "a.tif", image, nodata=3)), 1)
    validity = scene.validities[0].__class__(1, least, False, None)
    marks = plan_marks(scene.__class__(**{**scene.__dict__, "validities": (validity,)}), (1,))
    values = image[None].copy()
    counts = marks.apply(values, image[None] != least)
    assert values.tolist() == [[[-(2**53), 1 - 2**53, 5]]]
    assert shown(values, marks, counts).tolist() == [[[False, True, True]]]


def test_exception_bands_of_different_types(tmp_path):
    rasters.write(tmp_path / "one.tif", np.stack([RAMP, RAMP]))
    vrt(tmp_path / "a.vrt", ("Byte", "Float32"), (None, None))
    scene = open_scene(str(tmp_path / "a.vrt"), 1)
    with pytest.raises(EngineError, match="band 1 is uint8, band 2 is float32") as caught:
        plan_marks(scene, (1, 2))
    assert "OTHER_BANDS" in caught.value.hint
    assert plan_marks(scene, (1,)).dtype == "uint8"


def test_feature_scores_and_classes():
    marks = score_marks(2)
    values = np.array([[[0.5, SCORES_NODATA, 7.0]], [[0.5, 0.25, 7.0]]], np.float32)
    valid = np.array([[[True, True, False]], [[True, True, False]]])
    counts = marks.apply(values, valid)
    assert counts == MarkCounts(moved=1)
    assert values[:, 0, 2].tolist() == [SCORES_NODATA, SCORES_NODATA]
    assert abs(values[0, 0, 1] - SCORES_NODATA) < 0.01
    assert (shown(values, marks, counts) == valid).all()
    labels = np.array([[[0, 254, 3]]], np.uint8)
    class_marks().apply(labels, np.array([[[True, True, False]]]))
    assert labels.tolist() == [[[0, 254, CLASSES_NODATA]]]


def test_exception_a_class_of_the_nodata_number():
    with pytest.raises(AssertionError, match="255"):
        class_marks().apply(np.full((1, 1, 1), 255, np.uint8), np.ones((1, 1, 1), bool))


@st.composite
def cases(draw):
    """Draw (marks, values, valid) of 2 bands: values crowd around the nodata, the ends and the marks."""
    dtype = np.dtype(draw(st.sampled_from([*INTEGERS, "uint8", "float32", "float64", "float32"])))
    if dtype.kind == "f":
        ordinary = st.floats(
            width=dtype.itemsize * 8, allow_nan=False, min_value=-(2.0**99), max_value=2.0**99
        )
        possible = st.sampled_from([0.0, -9999.0, 1.0, 1.999, 0.1, float("nan"), float("-inf"), 1e-44])
        strange = st.sampled_from([np.nan, np.inf, -np.inf, float(dtype.type(1e30)), -3.4028234663852886e38])
    else:
        limits = np.iinfo(dtype)
        edge = min(2**53, limits.max)
        ordinary = st.integers(int(limits.min), int(limits.max))
        possible = st.sampled_from([0, 1, edge, max(-edge, int(limits.min)), 77])
        strange = ordinary
    sources = draw(st.tuples(st.none() | possible, st.none() | possible))
    sources = tuple(None if v is None else float(dtype.type(v)) if dtype.kind == "f" else v for v in sources)
    nodata = next((v for v in sources if v is not None), None)
    near = [v + d for v in sources if v is not None and abs(v) < 1e9 for d in (0, 1, -1) if dtype.kind == "f"]
    near += [float(np.nextafter(dtype.type(v), dtype.type(9))) for v in near]
    near += [int(v) for v in sources if v is not None and dtype.kind != "f"]
    elements = ordinary | strange | (st.sampled_from(near) if near else ordinary)
    values = draw(
        hnp.arrays(dtype, (2, 2, 3), elements=elements.map(lambda v: dtype.type(v).item()), fill=st.nothing())
    )
    valid = np.ones(values.shape, bool)
    for band, source in enumerate(sources):
        if dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                valid[band] &= np.abs(values[band]) < ABSURD
        if source is not None:
            valid[band] &= values[band] != dtype.type(source)
    late = LATE_NODATA if nodata is None and dtype.kind == "f" else None
    return Marks(dtype, nodata, sources, late), values, valid


@given(cases())
def test_property_a_valid_pixel_never_reads_as_nodata_and_an_invalid_one_always_does(case):
    marks, values, valid = case
    counts = marks.apply(values, valid)
    assert (shown(values, marks, counts) == valid).all()


@given(cases())
def test_property_never_nan_unless_nan_is_the_nodata(case):
    marks, values, valid = case
    marks.apply(values, valid)
    if marks.dtype.kind == "f" and marks.nodata == marks.nodata:
        assert not np.isnan(values).any()
        assert np.isfinite(values).all() or marks.nodata == -np.inf


@given(cases())
def test_property_only_what_must_change_changes(case):
    marks, values, valid = case
    before = values.copy()
    counts = marks.apply(values, valid)
    changed = valid & (values != before)
    assert np.count_nonzero(changed) <= counts.moved
    if marks.dtype.kind == "f":
        moved = np.abs(values[changed].astype(float) - before[changed])
        assert (moved <= 1.3e-6 * np.abs(before[changed]) + 1e-40).all()
    else:
        assert all(abs(int(a) - int(b)) == 1 for a, b in zip(values[changed], before[changed], strict=True))


@given(cases())
def test_property_marking_twice_changes_nothing_more(case):
    marks, values, valid = case
    marks.apply(values, valid)
    once = values.copy()
    marks.apply(values, valid)
    assert np.array_equal(values, once, equal_nan=marks.dtype.kind == "f")
