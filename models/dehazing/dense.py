"""How much of a scene is so bright and featureless that nothing can be brought back there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..task import Block

#: Side of the cells looked at, in pixels: enough for a mean, small enough for a bank of haze.
CELL = 32
#: Of the real pairs (hazy_pairs) 109 cells are brighter than half the stretch and vary by less than
#: 0.01 of it, as a standard deviation: what is left correlates with the clear ground at 0.21, against
#: 0.6 for cells that vary by 0.01 to 0.03 (medians).
BRIGHT = 0.5
FLAT = 0.01


class DenseCount:
    """Counts, block by block, the cells in which nothing can be brought back."""

    def __init__(self) -> None:
        self._seen = self._dense = 0

    def add(self, block: Block) -> None:
        """Look at the whole cells of a block."""
        height, width = (side // CELL for side in block.valid.shape)
        if not height or not width:
            return
        cells = block.image[:, : height * CELL, : width * CELL].reshape(-1, height, CELL, width, CELL)
        valid = block.valid[: height * CELL, : width * CELL].reshape(height, CELL, width, CELL).all((1, 3))
        flat = cells.std(axis=(2, 4)).mean(axis=0) < FLAT
        bright = cells.mean(axis=(0, 2, 4)) > BRIGHT
        self._seen += np.count_nonzero(valid)
        self._dense += np.count_nonzero(valid & flat & bright)

    @property
    def share(self) -> float:
        """Return the share, 0..1, of whole valid cells that are bright and flat; 0 where there is none."""
        return self._dense / self._seen if self._seen else 0.0


def dense_share(blocks: Iterable[Block]) -> float:
    """Return the share of dense cells in all blocks, see :class:`DenseCount`."""
    count = DenseCount()
    for block in blocks:
        count.add(block)
    return count.share
