"""The reader thread: order, errors, cancel, and no thread left behind."""

import contextlib
import threading
import time

import pytest
from kestrel.engine.errors import Cancelled
from kestrel.engine.pipeline import DEPTH, read_ahead


@contextlib.contextmanager
def handle():
    yield "handle"


def threads():
    return [t for t in threading.enumerate() if t.name == "kestrel-read-ahead"]


@pytest.mark.parametrize("threaded", [True, False])
def test_smoke_order_and_handle(threaded):
    found = list(read_ahead(handle, lambda h, i: (h, i), range(50), threading.Event(), threaded))
    assert found == [("handle", i) for i in range(50)]
    assert not threads()


@pytest.mark.parametrize("threaded", [True, False])
def test_exception_reaches_the_consumer_after_what_was_read(threaded):
    def load(_, i):
        if i == 5:
            raise KeyError("block 5")
        return i

    seen = []
    with pytest.raises(KeyError, match="block 5"):
        seen.extend(read_ahead(handle, load, range(10), threading.Event(), threaded))
    assert seen == [0, 1, 2, 3, 4]
    assert not threads()


def test_exception_while_opening_reaches_the_consumer():
    @contextlib.contextmanager
    def broken():
        raise OSError("no such file")
        yield

    with pytest.raises(OSError, match="no such file"):
        list(read_ahead(broken, lambda _, i: i, range(3), threading.Event()))
    assert not threads()


@pytest.mark.parametrize("threaded", [True, False])
def test_feature_cancel_ends_within_a_moment(threaded):
    cancel = threading.Event()
    reading = read_ahead(handle, lambda _, i: i, iter(int, 1), cancel, threaded)
    next(reading)
    cancel.set()
    start = time.monotonic()
    with pytest.raises(Cancelled):
        next(reading)
    assert time.monotonic() - start < 1
    assert not threads()


def test_feature_consumer_that_leaves_early_leaves_no_thread():
    reading = read_ahead(handle, lambda _, i: i, iter(int, 1), threading.Event())
    assert next(reading) == 0
    reading.close()
    assert not threads()


def test_feature_queue_is_bounded():
    loaded = []
    reading = read_ahead(handle, lambda _, i: loaded.append(i), range(100), threading.Event())
    next(reading)
    time.sleep(0.3)
    assert len(loaded) <= DEPTH + 3
    reading.close()
