"""One reader thread ahead of the work, a bounded queue between them, nothing lost on the way.

Exceptions of the thread are raised in the consumer; cancel is polled in every wait; leaving the
loop early ends the thread (ENGINE.md, section 1).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from .errors import Cancelled

In = TypeVar("In")
Out = TypeVar("Out")

#: Items read ahead: two hide the decoding of one behind the network, more only cost memory.
DEPTH = 3
POLL_S = 0.05


def read_ahead(
    open_reader: Callable[[], AbstractContextManager[Any]],
    load: Callable[[Any, In], Out],
    items: Iterable[In],
    cancel: threading.Event,
    threads: bool = True,
    depth: int = DEPTH,
) -> Generator[Out, None, None]:
    """Yield ``load(reader, item)`` for every item, in order.

    ``open_reader`` gives the thread a handle of its own; ``depth`` items wait at most. With
    ``threads=False`` the same happens in the caller's thread. Raises Cancelled when ``cancel`` is set.
    """
    if not threads:
        with open_reader() as reader:
            for item in items:
                if cancel.is_set():
                    raise Cancelled
                yield load(reader, item)
        return
    pipe = _Pipe[Out](cancel, depth)
    thread = threading.Thread(
        target=_fill, args=(pipe, open_reader, load, items), name="kestrel-read-ahead", daemon=True
    )
    thread.start()
    try:
        yield from pipe.drain()
    finally:
        pipe.stop.set()
        thread.join()


class _Pipe(Generic[Out]):
    """A bounded queue that ends by a mark and carries an exception."""

    def __init__(self, cancel: threading.Event, depth: int) -> None:
        self.cancel = cancel
        self.stop = threading.Event()
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(depth)

    def put(self, what: str, value: Any) -> bool:
        """Wait for room; return False when nobody wants the rest."""
        while not self.stop.is_set() and not self.cancel.is_set():
            try:
                self._queue.put((what, value), timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def drain(self) -> Iterator[Out]:
        """Yield values until the end mark; raise what the thread raised."""
        while True:
            if self.cancel.is_set():
                raise Cancelled
            try:
                what, value = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if what == "end":
                return
            if what == "error":
                raise value
            yield value


def _fill(
    pipe: _Pipe[Out],
    open_reader: Callable[[], AbstractContextManager[Any]],
    load: Callable[[Any, In], Out],
    items: Iterable[In],
) -> None:
    try:
        with open_reader() as reader:
            for item in items:
                if not pipe.put("value", load(reader, item)):
                    return
    except BaseException as error:  # whatever it is, it belongs to the consumer
        pipe.put("error", error)
    else:
        pipe.put("end", None)
