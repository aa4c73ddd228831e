import pytest
import torch
from kestrel.models import device as device_module
from kestrel.models.task import ModelError


@pytest.mark.parametrize(
    ("cores", "before", "threads"), [(1, 1, 1), (2, 2, 2), (8, 8, 7), (8, 4, 4), (2, 1, 1)]
)
def test_feature_one_core_is_left_where_there_are_more_than_two(monkeypatch, cores, before, threads):
    chosen = []
    monkeypatch.setattr(device_module.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: before)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    device_module.use_threads()
    assert chosen == [threads]


def test_exception_a_device_that_is_not_here():
    with pytest.raises(ModelError, match="'tpu' is not available"):
        device_module.torch_device("tpu")


def test_smoke_the_processor_is_always_here():
    assert device_module.torch_device("cpu") == torch.device("cpu")
