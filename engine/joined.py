"""Several layers as one scene: its bands are theirs, one layer after another, on the first one's grid.

So everything that looks at a scene - statistics, survey, tiles, finishing - looks at all dates or sensors
at once, and a pixel is valid where each of them has data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from .align import Layer, common_ground, lay
from .scene import Reader, Scene

if TYPE_CHECKING:
    from .misregistration import Registration


@dataclass(frozen=True)
class Joined(Scene):
    """Layers of one ground as one scene.

    ``layers``: in the order in which their bands follow each other; the first one gives the grid, cut to
    the rectangle that all share. ``path`` is the first one's. ``origin``: row and column of the grid's
    first pixel in that file. ``registration``: how far the second layer's pictures lie beside the first
    one's, None where it was not measured.
    """

    layers: tuple[Layer, ...] = ()
    origin: tuple[int, int] = (0, 0)
    registration: Registration | None = None

    @property
    def title(self) -> str:
        """Return the layers' names."""
        names = [layer.name for layer in self.layers]
        return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Return for each chosen band its number in its own file, and which that is."""
        return tuple(f"{band} of {layer.name}" for layer in self.layers for band in layer.scene.bands)

    @property
    def parts(self) -> dict[str, slice]:
        """Return which of the bands are a role's."""
        found, first = {}, 0
        for layer in self.layers:
            found[layer.role] = slice(first, first + len(layer.scene.bands))
            first += len(layer.scene.bands)
        return found

    def with_bands(self, bands: Sequence[int]) -> Scene:
        """Bands are chosen layer by layer: :func:`joined`."""
        raise NotImplementedError

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Open all layers for the current thread."""
        with ExitStack() as stack:
            yield JoinedReader(self, [stack.enter_context(layer.scene.reader()) for layer in self.layers])


class JoinedReader(Reader):
    """An open :class:`Joined`."""

    def __init__(self, scene: Joined, readers: Sequence[Reader]) -> None:
        """``readers``: one for each layer."""
        self.scene = scene
        self._layers = list(zip(scene.layers, readers, strict=True))

    def read_bands(
        self, row: int, col: int, height: int, width: int, bands: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (values, valid bool), both (C, height, width), of ``bands`` or all, counted from 1."""
        found = [layer.read(reader, (row, col, height, width)) for layer, reader in self._layers]
        values = np.concatenate([each for each, _ in found])  # in a dtype that holds all
        valid = np.concatenate([each for _, each in found])
        if bands is None or tuple(bands) == self.scene.bands:
            return values, valid
        pick = [band - 1 for band in bands]
        return values[pick], valid[pick]

    def read_valid(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Return bool (height, width): where every chosen band has data; nothing is interpolated."""
        valid = np.ones((height, width), bool)
        for layer, reader in self._layers:
            valid &= layer.read_valid(reader, (row, col, height, width))
        return valid


def joined(scenes: Sequence[tuple[str, Scene]], shift: tuple[float, float] = (0.0, 0.0)) -> Joined:
    """Join scenes, (role, scene with its chosen bands) with the reference first.

    ``shift``: (x, y) pixels by which all others lie right of and below their place. The ground is the
    same with and without it. Raises EngineError where the layers share no ground.
    """
    reference = scenes[0][1]
    row, col, height, width = common_ground(scenes)
    affine = reference.georef.affine * Affine.translation(col, row)
    grid = replace(reference.georef, affine=affine) if (row, col) != (0, 0) else reference.georef
    size = height, width
    layers = tuple(
        lay(role, scene, grid, size, shift if number else (0.0, 0.0))
        for number, (role, scene) in enumerate(scenes)
    )
    chosen = [(layer.scene, band) for layer in layers for band in layer.scene.bands]
    return Joined(
        path=reference.path,
        bands=tuple(range(1, len(chosen) + 1)),
        width=width,
        height=height,
        dtypes=tuple(scene.dtypes[band - 1] for scene, band in chosen),
        block=reference.block,
        validities=tuple(scene.validities[band - 1] for scene, band in chosen),
        georef=grid,
        stamps=tuple(dict.fromkeys(stamp for _, scene in scenes for stamp in scene.stamps)),
        notes=tuple(note for _, scene in scenes for note in scene.notes),
        band_notes=(),
        layers=layers,
        origin=(row, col),
    )
