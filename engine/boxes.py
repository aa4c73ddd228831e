"""Boxes, column by column, and how one tile's answer becomes boxes of the scene."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .grid import Grid, Tile
from .nms import nms

#: A box that ends within so many pixels of an interior tile edge is taken as cut by it.
EDGE_PX = 2.0
#: Two tiles place one object differently by up to EDGE_PX each; without this slack a sliver of an
#: object, three pixels wide at a tile edge, would not be covered by the object itself.
SLACK_PX = 2 * EDGE_PX


@dataclass(frozen=True, eq=False)
class Boxes:
    """N detections, column by column.

    ``xyxy``: float64 (N, 4) in scene pixels (pixel edges). ``score``: (N,). ``cls``: class index.
    ``tile``: number of the tile that saw it best. ``window``: (N, 4) that tile's xyxy. ``cut``: bool
    (N, 4), left, top, right, bottom side cut by an interior tile edge. ``soft``: the task itself
    called it cut, somewhere inside its tile. ``many``: joined from several tiles. ``edge``: touches
    the raster's edge or nodata.
    """

    xyxy: np.ndarray
    score: np.ndarray
    cls: np.ndarray
    tile: np.ndarray
    window: np.ndarray
    cut: np.ndarray
    soft: np.ndarray
    many: np.ndarray
    edge: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def take(self, index: np.ndarray) -> Boxes:
        """Return the boxes at ``index`` (integers or booleans)."""
        return Boxes(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def broken(self) -> np.ndarray:
        """Return bool (N,): cut on some side."""
        return self.cut.any(axis=1) | self.soft


def concat(parts: list[Boxes]) -> Boxes:
    """Return all boxes of a list, in its order."""
    if not parts:
        return empty()
    return Boxes(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Boxes)))


def empty() -> Boxes:
    """Return no boxes."""
    return Boxes(
        np.empty((0, 4)),
        np.empty(0),
        np.empty(0, int),
        np.empty(0, int),
        np.empty((0, 4)),
        np.empty((0, 4), bool),
        np.empty(0, bool),
        np.empty(0, bool),
        np.empty(0, bool),
    )


def from_tile(
    raw: np.ndarray, tile: Tile, grid: Grid, overlap: int, valid: np.ndarray, threshold: float
) -> Boxes:
    """Take over one tile's answer: (N, 6) or (N, 7), as ``models/task.py: Task`` describes it.

    Boxes centred in the padding are dropped, the rest is cut to the tile, doubles within the tile
    are dropped by NMS at ``threshold``, and coordinates become the scene's.
    """
    raw = np.asarray(raw, float)
    if not raw.size:
        return empty()
    raw = raw[np.isfinite(raw).all(axis=1)]
    size = np.array([tile.width, tile.height])
    centre = (raw[:, 0:2] + raw[:, 2:4]) / 2
    local = np.clip(raw[:, :4], 0, np.tile(size, 2))
    inside = ((centre >= 0) & (centre <= size)).all(axis=1)
    pick = inside & (local[:, 2] > local[:, 0]) & (local[:, 3] > local[:, 1])
    raw, local = raw[pick], local[pick]
    keep = nms(local, raw[:, 4], raw[:, 5].astype(int), threshold) if len(raw) else np.empty(0, bool)
    raw, local = raw[keep], local[keep]

    window = np.array([tile.col, tile.row, tile.col + tile.width, tile.row + tile.height], float)
    interior = window != [0, 0, grid.width, grid.height]
    away = np.abs(local - [0, 0, tile.width, tile.height])
    soft = raw[:, 6] > 0.5 if raw.shape[1] > 6 else np.zeros(len(raw), bool)
    # a soft cut has no edge of its own: it may go on where the neighbour sees more, in the overlap
    cut = interior & ((away <= EDGE_PX) | (soft[:, None] & (away < overlap)))
    return Boxes(
        xyxy=local + np.tile(window[:2], 2),
        score=raw[:, 4],
        cls=raw[:, 5].astype(int),
        tile=np.full(len(raw), tile.number),
        window=np.tile(window, (len(raw), 1)),
        cut=cut,
        soft=soft,
        many=np.zeros(len(raw), bool),
        edge=(~interior & (away <= EDGE_PX)).any(axis=1) | _meets_nodata(local, valid),
    )


def _meets_nodata(local: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return bool (N,): an invalid pixel in the box or one pixel around it."""
    if valid.all():
        return np.zeros(len(local), bool)
    low = np.clip(np.floor(local[:, :2]).astype(int) - 1, 0, None)
    high = np.ceil(local[:, 2:]).astype(int) + 1
    return np.array(
        [not valid[y0:y1, x0:x1].all() for (x0, y0), (x1, y1) in zip(low, high, strict=True)], bool
    )


def grown(boxes: Boxes) -> np.ndarray:
    """Return xyxy with cut boxes widened by the slack two tiles may differ by."""
    return boxes.xyxy + boxes.broken[:, None] * SLACK_PX * np.array([-1, -1, 1, 1])


def widened(boxes: Boxes, other: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Return the boxes ``other`` with room for jitter before asking whether they hold ``piece``.

    Room across the piece's cut, where it may be a sliver, and along any axis on which both extend
    alike. Elsewhere a ship with more room would swallow the piece of another one moored beside it.
    """
    a, b = boxes.xyxy[other], boxes.xyxy[piece]
    alike = np.abs(a - b) <= SLACK_PX
    cut = boxes.cut[piece]
    wide = (alike[:, :2] & alike[:, 2:]) | cut[:, :2] | cut[:, 2:] | boxes.soft[piece][:, None]
    return a + np.concatenate([-SLACK_PX * wide, SLACK_PX * wide], axis=1)
