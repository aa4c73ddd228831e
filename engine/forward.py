"""Batches through the model: size, back-off on a memory shortage, seconds inside it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.task import Task
from .device import automatic_batch, is_out_of_memory, release_memory
from .errors import EngineError
from .events import Track
from .grid import Grid
from .tiles import Loaded, stack

if TYPE_CHECKING:  # pyogrio brings pandas: 59 MB and 0.3 s that rasters do not need
    from .land import Land


class TileTooLarge(Exception):
    """There is no memory for one tile, but a smaller one gives the same result."""


class Forward:
    """Runs a task on loaded tiles. ``size``: tiles per batch; it only ever shrinks."""

    def __init__(
        self,
        task: Task,
        grid: Grid,
        land: Land | None,
        device: str,
        batch: int,
        track: Track,
        smaller_tiles: bool = False,
    ):
        """``batch`` 0 = automatic. ``smaller_tiles``: the caller knows what to do on TileTooLarge."""
        self._smaller_tiles = smaller_tiles
        self._task = task
        self.classes = task.outputs
        self._grid = grid
        self._land = land
        self._device = device
        self._track = track
        self.size = batch or automatic_batch(device, grid.tile)

    def prepared(
        self, groups: Iterator[list[Loaded]], threads: bool = True
    ) -> Generator[tuple[list[Loaded], Any], None, None]:
        """Yield every group with what the task's ``prepare`` makes of its tiles with valid pixels.

        In a thread of its own, one group ahead: the next batch is stacked while the model works. None
        where there is nothing to prepare, or no memory for it: :meth:`run` does it then.
        """
        if not threads:
            for group in groups:
                yield group, None
            return
        with ThreadPoolExecutor(1, "kestrel-prepare") as pool:
            before: tuple[list[Loaded], Future[Any]] | None = None
            for group in groups:
                future = pool.submit(self._prepare_ahead, [i for i in group if i.image is not None])
                if before is not None:
                    yield before[0], before[1].result()
                before = group, future
            if before is not None:
                yield before[0], before[1].result()

    def run(self, loaded: Sequence[Loaded], prepared: Any = None) -> list[Any]:
        """Return the task's answer for each tile; every tile is answered or EngineError raised.

        ``prepared``: what :meth:`prepared` made of them, or None.
        """
        answers: list[Any] = []
        while len(answers) < len(loaded):
            self._track.check()
            part = loaded[len(answers) : len(answers) + self.size]
            answer = self._try(part, prepared if len(part) == len(loaded) else None)
            prepared = None
            if answer is None:
                self._shrink(len(part))
            else:
                answers += answer
        return answers

    def _prepare_ahead(self, loaded: Sequence[Loaded]) -> Any:
        try:
            return self._prepare(loaded) if loaded else None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _prepare(self, loaded: Sequence[Loaded]) -> Any:
        start = time.monotonic()
        land = None
        if self._land is not None:
            land = np.stack([self._land.mask(item.tile, self._grid.tile) for item in loaded])
        prepared = self._task.prepare(stack(loaded, self._task.inputs, self._grid, land))
        self._track.add("prepare", time.monotonic() - start)
        return prepared

    def _try(self, loaded: Sequence[Loaded], prepared: Any) -> list[Any] | None:
        """Return the answers, or None on a shortage of memory."""
        try:
            if prepared is None:
                prepared = self._prepare(loaded)
            start = time.monotonic()
            try:
                answers = self._task.predict(prepared)
            finally:
                self._track.add("predict", time.monotonic() - start)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        if len(answers) != len(loaded):
            raise EngineError(
                "internal", f"{self._task.name} answered {len(answers)} of {len(loaded)} tiles."
            )
        return list(answers)

    def _shrink(self, failed: int) -> None:
        release_memory(self._device)
        if failed == 1 and self._smaller_tiles:
            raise TileTooLarge
        if failed == 1:
            height, width = self._grid.tile
            raise EngineError(
                "memory",
                f"There is not enough memory on {self._device} for one tile of {width} x {height} pixels.",
                f"Choose a smaller TILE (a multiple of {self._task.multiple}), or another DEVICE.",
            )
        self.size = max(1, failed // 2)
        self._track.warn(f"Not enough memory for {failed} tiles at once; going on with {self.size}.")
