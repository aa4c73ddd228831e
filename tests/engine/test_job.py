"""The Job as text: what is read back is what was written, and nothing else is accepted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kestrel.engine.job import TO_WORKER, Job, JobError, decode_message

FIELDS = {
    "kind": "predict",
    "model": "toy",
    "inputs": {"image": {"path": "a.tif", "bands": [1]}},
    "outputs": {"boxes": "b.fgb"},
    "params": {"tile": 640, "weights": None},
}


def test_save_load():
    job = Job(**FIELDS, extent=[0, 0, 1.5, 2], aoi_wkt="POLYGON EMPTY", crs_wkt="EPSG:4326")
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"version": True},
        {"version": 1.0},
        {"version": 2},
        {"kind": "delete"},
        {"kind": []},
        {"model": None},
        {"device": 0},
        {"scratch": []},
        {"inputs": []},
        {"inputs": {"image": "a.tif"}},
        {"inputs": {"image": {"bands": [1]}}},
        {"inputs": {"image": {"path": "a.tif", "more": 1}}},
        {"inputs": {"image": {"path": "a.tif", "bands": [True]}}},
        {"inputs": {"image": {"path": "a.tif", "bands": [0]}}},
        {"inputs": {"image": {"path": "a.tif", "bands": [1.0]}}},
        {"outputs": {"boxes": 1}},
        {"params": None},
        {"params": {"tile": float("nan")}},
        {"params": {"tile": float("inf")}},
        {"extent": [0, 0, 1]},
        {"extent": [0, 0, 0, 1]},
        {"extent": [0, 0, 1, True]},
        {"extent": [0, 0, 1, 10**400]},
        {"aoi_wkt": 5},
        {"crs_wkt": {}},
    ],
)
def test_exception_unknown_or_mistyped(change):
    with pytest.raises(JobError):
        Job.from_json(json.dumps({**FIELDS, **change}))


@pytest.mark.parametrize("name", FIELDS)
def test_exception_missing(name):
    with pytest.raises(JobError, match=name):
        Job.from_json(json.dumps({key: value for key, value in FIELDS.items() if key != name}))


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "1", "[" * 100_000, "9" * 5000, '{"kind": NaN}'])
def test_exception_not_a_job_or_message(text):
    with pytest.raises(JobError):
        Job.from_json(text)
    with pytest.raises(JobError):
        decode_message(text, TO_WORKER)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*Job.__dataclass_fields__]), ANYTHING)
def test_property_any_value_is_accepted_as_a_job_or_refused(name, value):
    try:
        job = Job.from_json(json.dumps({**FIELDS, name: value}))
    except JobError:
        return
    assert Job.from_json(job.to_json()) == job
