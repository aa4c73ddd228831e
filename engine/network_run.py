"""A run on a network's own grid: answers go into a scratch raster, and from there onto the output's grid.

What is valid, and what lies in EXTENT and AOI, is decided on the output's grid alone, as without RESAMPLE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy import ndimage

from .align import samples_for
from .blend import BLOCK
from .errors import EngineError
from .events import Track
from .finish import Written
from .georef import Georef
from .loop import TILES_TO, telling_how_far
from .marks import SCORES_NODATA
from .network_grid import FILL
from .parts import part_of
from .raster_pieces import Sink
from .raster_plan import Piece
from .raster_prepare import Prepared
from .resample import resample
from .statistics import Rect

#: Pixels a side of the network's grid that are brought back at once: 0.3 million with all that is worked
#: out for them take about 50 MB. But never fewer than LEAST of the output.
SIDE, LEAST = 512, 32

#: (run, where its blocks go, counts) -> tiles per batch.
Tiles = Callable[[Prepared, Sink, Written], int]


def run_on_network_grid(ready: Prepared, tiles: Tiles, sink: Sink, written: Written, track: Track) -> int:
    """Run all tiles on the network's grid, bring the answers back block by block; return tiles per batch."""
    network = ready.network
    assert network is not None
    with _scratch(ready) as scratch:
        batch = tiles(network, scratch, network.finisher.start())
        scratch.flush()
        pieces = list(_blocks(ready.plan.output))
        scene = ready.scene
        with (
            track.stage("resampling", TILES_TO),
            telling_how_far(lambda: 1.0, scene),
            scene.reader() as reader,
        ):
            for number, piece in enumerate(pieces):
                track.check()
                track.progress(TILES_TO, number, len(pieces), "resampling", None)
                answer = brought_back(scratch, ready, piece)
                sink.put(piece, ready.finisher.finish(reader, piece, answer, written))
    return batch


def scratch_bytes(plan_output: Piece, channels: int) -> int:
    """Return the bytes that the scratch raster takes."""
    return 4 * channels * (plan_output.bottom - plan_output.top) * (plan_output.right - plan_output.left)


def brought_back(scratch: Scratch, ready: Prepared, piece: Piece) -> np.ndarray:
    """Return float32 (C, h, w): the answers on a piece of the output; 0 where none is near.

    Bilinear, with the mean over a pixel where the network's pixels are smaller: each pixel's value is its
    own, whatever piece it is asked for in.
    """
    assert ready.network is not None
    assert ready.grid is not None
    source, target = ready.network.scene.georef, ready.scene.georef
    found = np.zeros((scratch.channels, *piece.shape), np.float32)
    side = min(BLOCK, max(LEAST, int(SIDE * min(ready.grid.steps))))
    for top in range(0, piece.shape[0], side):
        for left in range(0, piece.shape[1], side):
            part = np.s_[:, top : min(piece.shape[0], top + side), left : min(piece.shape[1], left + side)]
            start = piece.top + top, piece.left + left
            shape = part[1].stop - top, part[2].stop - left
            found[part] = _resampled(scratch, source, ready.grid.size, target, start, shape, ready.grid.steps)
    return found


def _resampled(
    scratch: Scratch,
    source: Georef,
    size: tuple[int, int],
    target: Georef,
    start: tuple[int, int],
    shape: tuple[int, int],
    steps: tuple[float, float],
) -> np.ndarray | float:
    samples = samples_for(1 / steps[1]), samples_for(1 / steps[0])
    answer = resample(scratch.read_filled, source, size, target, start, shape, samples)
    return 0.0 if answer is None else answer[0].astype(np.float32)


class Scratch:
    """A raster of float32 in a plain file, (C, H, W), for one run; a sink for its blocks.

    A plain file tells of a full disk when it is written, and only what was written is read.
    """

    def __init__(self, path: Path, file: IO[bytes], output: Piece, channels: int) -> None:
        """``output``: the pixels it holds."""
        self._path, self._file, self._output, self.channels = path, file, output, channels

    def put(self, piece: Piece, arrays: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Write one block; raises EngineError where the disk has no room for it."""
        values = np.ascontiguousarray(arrays["scores"][0], dtype=np.float32)
        try:
            for band, rows in enumerate(values):
                for row, line in enumerate(rows, piece.top):
                    self._file.seek(self._place(band, row, piece.left))
                    self._file.write(line.tobytes())
        except OSError as error:
            raise _unwritten(self._path, error) from error

    def flush(self) -> None:
        """Hand everything to the system; raises EngineError as :meth:`put`."""
        try:
            self._file.flush()
        except OSError as error:
            raise _unwritten(self._path, error) from error

    def read_filled(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (float32, known bool), both (C, height, width); unknown pixels near known ones are filled.

        With the nearest known value within FILL pixels, the same whatever window is asked for.
        """
        values = self._read((row - FILL, col - FILL, height + 2 * FILL, width + 2 * FILL))
        known = values[0] != np.float32(SCORES_NODATA)
        if not known.all() and known.any():
            far, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
            values = values[:, nearest[0], nearest[1]]
            known = far <= FILL
        inner = np.s_[FILL : FILL + height, FILL : FILL + width]
        return values[:, *inner], np.broadcast_to(known[inner], (self.channels, height, width))

    def _read(self, rect: Rect) -> np.ndarray:
        """Return a window, nodata beyond the raster."""
        row, col, height, width = rect
        values = np.full((self.channels, height, width), SCORES_NODATA, np.float32)
        left, right = max(col, self._output.left), min(col + width, self._output.right)
        if left >= right:
            return values
        for band in range(self.channels):
            for line in range(max(row, self._output.top), min(row + height, self._output.bottom)):
                self._file.seek(self._place(band, line, left))
                there = np.frombuffer(self._file.read(4 * (right - left)), np.float32)
                values[band, line - row, left - col : right - col] = there
        return values

    def _place(self, band: int, row: int, col: int) -> int:
        height, width = self._output.shape
        return 4 * ((band * height + row - self._output.top) * width + col - self._output.left)


@contextmanager
def _scratch(ready: Prepared) -> Iterator[Scratch]:
    """Make the file beside the first output, where the next run clears it should this one be killed."""
    assert ready.network is not None
    path = part_of(next(iter(ready.job.outputs.values()))).with_suffix(".network")
    try:
        file: Any = path.open("w+b")
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        yield Scratch(path, file, ready.network.plan.output, len(ready.task.outputs))
    finally:
        with suppress(OSError):
            file.close()  # a full disk is told a second time here
        path.unlink(missing_ok=True)


def _unwritten(path: Path, error: OSError) -> EngineError:
    return EngineError(
        "output",
        f"Probabilities cannot be kept in {path.parent}: {(error.strerror or str(error)).lower()}.",
        "Free some space or choose another folder.",
    )


def _blocks(output: Piece) -> Iterator[Piece]:
    for top in range(output.top, output.bottom, BLOCK):
        for left in range(output.left, output.right, BLOCK):
            yield Piece(top, min(output.bottom, top + BLOCK), left, min(output.right, left + BLOCK))
