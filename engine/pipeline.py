"""One reader thread ahead of the work, one writer thread behind it, bounded queues between them.

Exceptions of a thread are raised in the loop; cancel is polled in every wait; leaving the loop
early ends the threads (ENGINE.md, section 1).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
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

    def wait(self) -> Iterator[Out]:
        """Yield values until the end mark, the stop mark or cancel: the writer's side."""
        while not self.stop.is_set() and not self.cancel.is_set():
            try:
                what, value = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if what == "end":
                return
            yield value

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


class WriteBehind(Generic[In]):
    """Calls ``work(handle, item)`` for every item in a thread of its own, in order.

    ``with WriteBehind(...) as behind: behind.put(item)``. One item waits while one is worked on:
    more would only cost memory. What the thread raises, ``put`` or leaving the block raises again.
    Leaving with an exception drops what waits. ``open_handle`` gives the thread a handle of its own.
    """

    def __init__(
        self,
        open_handle: Callable[[], AbstractContextManager[Any]],
        work: Callable[[Any, In], None],
        cancel: threading.Event,
        threads: bool = True,
    ) -> None:
        """With ``threads=False`` the same happens in the caller's thread."""
        self._open, self._work, self._threads = open_handle, work, threads
        self._pipe = _Pipe[In](cancel, 1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kestrel-write-behind", daemon=True)
        self._inline: AbstractContextManager[Any] | None = None
        self._handle: Any = None

    def __enter__(self) -> WriteBehind[In]:
        """Start the thread."""
        if self._threads:
            self._thread.start()
        else:
            self._inline = self._open()
            self._handle = self._inline.__enter__()
        return self

    def put(self, item: In) -> None:
        """Hand over one item; waits while another one waits. Raises Cancelled or the thread's error."""
        if self._inline is not None:
            if self._pipe.cancel.is_set():
                raise Cancelled
            self._work(self._handle, item)
        elif not self._pipe.put("value", item):
            self._raise()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what was handed over, or drop it when the block failed."""
        if self._inline is not None:
            self._inline.__exit__(kind, error, trace)
            return
        if error is not None:
            self._pipe.stop.set()
        else:
            self._pipe.put("end", None)
        self._thread.join()
        if error is None and (self._error is not None or self._pipe.cancel.is_set()):
            self._raise()

    def _raise(self) -> None:
        if self._error is not None and not isinstance(self._error, Cancelled):
            raise self._error
        raise Cancelled

    def _run(self) -> None:
        try:
            with self._open() as handle:
                for item in self._pipe.wait():
                    self._work(handle, item)
        except BaseException as error:  # whatever it is, it belongs to the loop
            self._error = error
            self._pipe.stop.set()
