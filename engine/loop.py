"""What every loop over tiles needs: batches, progress, and how far a failed run had come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import EngineError, ReadError
from .events import Track
from .forward import Forward
from .scene import Scene
from .tiles import Loaded

#: Share of the progress bar before the first tile and after the last.
TILES_FROM, TILES_TO = 0.08, 0.95
#: Tiles without data that wait with an unfilled batch: each holds its mask, and a sparse scene has
#: thousands of them between two with data.
IDLE = 16


def batches(loaded: Iterator[Loaded], forward: Forward) -> Iterator[list[Loaded]]:
    """Group tiles so that each group holds one batch of tiles with valid pixels."""
    group: list[Loaded] = []
    filled = 0
    for item in loaded:
        group.append(item)
        filled += item.image is not None
        if filled >= forward.size:
            yield group
            group, filled = [], 0
        elif not filled or len(group) - filled >= IDLE:
            yield group  # let progress move
            group, filled = [], 0
    if group:
        yield group


class Clock:
    """Progress of the tile loop."""

    def __init__(self, total: int, track: Track) -> None:
        self._total = total
        self._done = 0
        self._track = track
        self._start = time.monotonic()

    def share(self) -> float:
        """Return the share of tiles done, 0..1."""
        return self._done / max(1, self._total)

    def tick(self, tiles: int) -> None:
        """Count tiles done and tell how long the rest may take."""
        self._done += tiles
        share = self.share()
        left = (time.monotonic() - self._start) * (1 - share) / share
        self._track.progress(
            TILES_FROM + (TILES_TO - TILES_FROM) * share, self._done, self._total, "tiles", left
        )


@contextmanager
def telling_how_far(share: Callable[[], float], scene: Scene) -> Iterator[None]:
    """Add to a read error how far the run had come; a file changed meanwhile explains it better."""
    try:
        yield
    except ReadError as error:
        scene.check_unchanged()
        message = f"{error.message.rstrip('.')} ({100 * share():.0f} % of the tiles were done)."
        raise EngineError(error.code, message, error.hint) from None
