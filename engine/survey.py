"""What a task asks of the whole scene before any tile: one pass over the lattice, scaled.

The blocks lie on the statistics' lattice (CONTRACTS.md, section 6), over the whole raster even where
EXTENT/AOI limits the run, so that such a run equals its part of the full one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..models.task import Block, Task
from .events import Track
from .scaling import Scaling
from .scene import Reader, Scene
from .statistics import BLOCKS, ENOUGH, Rect, all_cells, lattice
from .stretch import NO_PIXEL

#: Rows and columns of a block at the least: room for a neighbourhood (patch and guided filter reach
#: some 15 to 60 pixels) where a file is cut into single rows.
LEAST = 64


def survey(task: Task, scene: Scene, scalings: Sequence[Scaling], region: Rect | None, track: Track) -> Task:
    """Return the task that its ``survey`` makes of the scene's blocks, or the task itself without one.

    ``scalings``: one for each chosen band; ``region``: the pixel rectangle of EXTENT/AOI, or None. A
    block has 64 x 64 to 2^18 pixels where the raster has them, and a valid pixel at the least; a scene
    without any gives no block.
    """
    if task.survey is None:
        return task
    with scene.reader() as reader:
        return task.survey(_blocks(reader, scalings, region, track))


def _blocks(
    reader: Reader, scalings: Sequence[Scaling], region: Rect | None, track: Track
) -> Iterator[Block]:
    if all(scaling.source == NO_PIXEL for scaling in scalings):
        return  # the statistics have looked at every block already
    scene = reader.scene
    whole = (0, 0, scene.height, scene.width)
    for rect in (whole, region):
        if rect is None:
            continue
        found = False
        for block in _of(reader, lattice(scene, rect, LEAST), rect, scalings, track):
            found = True
            yield block
        if found:
            return
    # as rare as for the statistics: a few valid pixels between the lattice's cells
    rect = region or whole
    pixels = 0
    for number, block in enumerate(_of(reader, all_cells(scene, rect, LEAST), rect, scalings, track), 1):
        yield block
        pixels += int(block.valid.sum())
        if number >= BLOCKS or pixels >= ENOUGH:
            return


def _of(
    reader: Reader, cells: Iterable[Rect], rect: Rect, scalings: Sequence[Scaling], track: Track
) -> Iterator[Block]:
    """Yield the cells that have a valid pixel."""
    for cell in cells:
        track.check()
        track.progress(0, cell[0] - rect[0], rect[2], "survey", None)
        block = _block(reader, _widened(cell, rect), scalings)
        if block is not None:
            yield block


def _widened(cell: Rect, rect: Rect) -> Rect:
    """Return a cell that the edge of ``rect`` has cut, reaching back over its neighbour to LEAST pixels."""
    row, col, height, width = cell
    top = max(rect[0], min(row, row + height - LEAST))
    left = max(rect[1], min(col, col + width - LEAST))
    return top, left, row + height - top, col + width - left


def _block(reader: Reader, cell: Rect, scalings: Sequence[Scaling]) -> Block | None:
    values, valid = reader.read_bands(*cell)
    everywhere = valid.all(axis=0)
    if not everywhere.any():
        return None
    image = np.zeros(values.shape, np.float32)
    for out, raw, scaling in zip(image, values, scalings, strict=True):
        out[everywhere] = scaling.apply(raw[everywhere])
    return Block(image, everywhere, cell[0], cell[1])
