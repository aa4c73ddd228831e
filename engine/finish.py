"""From blended rows to what is written: restored rasters, plain values, classes.

Each finisher turns one block of blended rows into arrays for its outputs. It runs behind the tile
loop, in the writer's thread, with a reader of its own: what the outputs share with the input is read
again there, so that the loop keeps nothing but the strip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from ..models.task import Task
from .change import apply_change
from .drivers import gdal_env, open_dataset
from .errors import EngineError
from .georef import QGIS_PIXELS
from .marks import MarkCounts, Marks, class_marks, plan_marks, score_marks
from .raster_plan import Piece, RasterPlan
from .raster_tally import Tally
from .raster_target import Target
from .scaling import Scaling
from .scene import Reader, Scene

#: How the haze raster marks what has none.
_HAZE = score_marks(1)

Arrays = dict[str, tuple[np.ndarray, np.ndarray | None]]


@dataclass
class Written:
    """What a finisher counted while it worked; parts of one output are merged."""

    tally: Tally | None = None
    marks: MarkCounts = field(default_factory=MarkCounts)
    haze_max: float = 0.0
    valid_pixels: int = 0
    invalid_pixels: int = 0

    def merge(self, other: Written) -> None:
        """Add what another part of the same output counted."""
        if self.tally is not None and other.tally is not None:
            self.tally.merge(other.tally)
        self.marks.merge(other.marks)
        self.haze_max = max(self.haze_max, other.haze_max)
        self.valid_pixels += other.valid_pixels
        self.invalid_pixels += other.invalid_pixels


class Finisher(Protocol):
    """One kind of output."""

    def targets(self, tags: Mapping[str, str], cog: bool) -> dict[str, Target]:
        """Return name -> what that output is, for the outputs that the Job names."""

    def start(self) -> Written:
        """Return fresh counts for one part of the output."""

    def finish(self, reader: Reader, piece: Piece, answer: np.ndarray | None, to: Written) -> Arrays:
        """Return name -> (values (C, h, w), mask (h, w) or None) for one block.

        ``piece``: where it lies; ``answer``: float32 (C, h, w), or None where no tile had anything to say.
        """


@dataclass(frozen=True)
class Ground:
    """Where the output lies: its size, its transform and CRS."""

    height: int
    width: int
    transform: Affine
    crs: CRS | None

    def target(self, count: int, dtype: Any, tags: Mapping[str, str], **more: Any) -> Target:
        """Return the description of one output on this ground."""
        place = {"crs": self.crs, "transform": self.transform, "tags": dict(tags)}
        return Target(self.width, self.height, count, np.dtype(dtype), **place, **more)


def ground(scene: Scene, plan: RasterPlan) -> Ground:
    """Return where the output of a plan lies; raises EngineError without an affine transform."""
    if scene.georef.kind not in ("affine", "none"):
        raise EngineError(
            "input",
            f"{scene.path.name} is georeferenced by {scene.georef.kind.upper()}s alone, so its pixels lie on "
            "no grid.",
            "Warp it first (Raster > Projections > Warp).",
        )
    row, col = plan.rect[:2]
    affine = scene.georef.affine
    if scene.georef.kind == "none":
        affine = QGIS_PIXELS if row or col or plan.factor != 1 else Affine.identity()
    with gdal_env(), open_dataset(scene.path) as dataset:
        crs = dataset.crs
    return Ground(*plan.shape, affine * Affine.translation(col, row) * Affine.scale(1 / plan.factor), crs)


class Restored:
    """The input with its chosen bands changed: same grid, dtype, marks and tags.

    Outputs: ``raster``; ``haze``: the mean over the chosen bands of the absolute change, in stretched
    units.
    """

    def __init__(
        self,
        scene: Scene,
        plan: RasterPlan,
        scalings: Sequence[Scaling],
        strength: float,
        copy: bool,
        haze: bool,
        detail: bool,
    ) -> None:
        """``copy``: other bands go along, in input order; else the chosen ones, in their order, and alpha."""
        self._scene, self._plan, self._scalings, self._strength = scene, plan, tuple(scalings), strength
        self._haze, self._detail = haze, detail
        with gdal_env(), open_dataset(scene.path) as dataset:
            alpha = [b for b in dataset.indexes if dataset.colorinterp[b - 1] == ColorInterp.alpha]
            others = [b for b in alpha if b not in scene.bands]
            self.numbers = tuple(dataset.indexes) if copy else (*scene.bands, *others)
            pick = [b - 1 for b in self.numbers]
            self._more = {
                "descriptions": tuple(dataset.descriptions[i] for i in pick),
                "colorinterp": tuple(dataset.colorinterp[i] for i in pick),
                "units": tuple(dataset.units[i] for i in pick),
                "scales": tuple(dataset.scales[i] for i in pick),
                "offsets": tuple(dataset.offsets[i] for i in pick),
                "band_tags": tuple(_plain_tags(dataset.tags(b)) for b in self.numbers),
            }
            self._tags = _plain_tags(dataset.tags())
        self.positions = [self.numbers.index(band) for band in scene.bands]
        self.marks: Marks = plan_marks(scene, self.numbers)
        self._ground = ground(scene, plan)

    def targets(self, tags: Mapping[str, str], cog: bool) -> dict[str, Target]:
        """Return the raster and, where it is asked for, the haze."""
        on, count = self._ground, len(self.numbers)
        dtype = self._scene.dtypes[self.numbers[0] - 1]
        more = {**self._more, "nodata": self.marks.nodata, "mask": self.marks.mask, "cog": cog}
        found = {"raster": on.target(count, dtype, {**self._tags, **tags}, **more)}
        if self._haze:
            found["haze"] = on.target(
                1,
                np.float32,
                tags,
                nodata=_HAZE.nodata,
                descriptions=("mean absolute change (stretched units)",),
                cog=cog,
            )
        return found

    def start(self) -> Written:
        """Return fresh counts."""
        lows, highs = ([getattr(s, end) for s in self._scalings] for end in ("low", "high"))
        return Written(Tally(*self._plan.shape, lows, highs, self._detail))

    def finish(self, reader: Reader, piece: Piece, answer: np.ndarray | None, to: Written) -> Arrays:
        """Read the rows again, change what may change, mark what is not there."""
        row, col, shape = piece.top, piece.left, piece.shape
        values, valid = reader.read_bands(row, col, *shape, self.numbers)
        where = valid[self.positions].all(axis=0)
        wanted = self._plan.wanted(piece)
        inside = where if wanted is None else where & wanted
        before = values[self.positions]  # a copy: the positions are a list
        if answer is not None:
            may = None if inside.all() else inside
            for place, change, scaling in zip(self.positions, answer, self._scalings, strict=True):
                values[place] = apply_change(values[place], change, may, scaling, self._strength)
        to.marks.merge(self.marks.apply(values, valid))
        mask = self.marks.mask_of(valid) if self.marks.mask else None
        after = values[self.positions]
        top, left = row - self._plan.output.top, col - self._plan.output.left
        assert to.tally is not None
        to.tally.add(top, left, before, after, inside)
        found: Arrays = {"raster": (values, mask)}
        if self._haze:
            haze = self._changed(before, after)
            to.haze_max = max(to.haze_max, float(haze[where].max(initial=0.0)))
            _HAZE.apply(haze[None], where[None])
            found["haze"] = (haze[None], None)
        return found

    def _changed(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        haze = np.zeros(before.shape[1:], np.float32)
        for old, new, scaling in zip(before, after, self._scalings, strict=True):
            assert scaling.low is not None
            assert scaling.high is not None
            with np.errstate(invalid="ignore", over="ignore"):
                change = np.abs(new.astype(np.float64) - old.astype(np.float64))
                haze += (change / (scaling.high - scaling.low)).astype(np.float32)
        return haze / np.float32(len(before))


class Answered:
    """The model's own values: a regression, or the scores and classes of ``scores``.

    Outputs: ``raster`` (kind raster) or ``scores``: float32, one band for each of the task's outputs;
    ``classes``: uint8, the index of the best score.
    """

    def __init__(self, scene: Scene, plan: RasterPlan, task: Task, names: Sequence[str]) -> None:
        """``names``: the outputs the Job asks for."""
        self._plan, self._task, self._names = plan, task, tuple(names)
        self._ground = ground(scene, plan)
        self._scores, self._classes = score_marks(len(task.outputs)), class_marks()

    def targets(self, tags: Mapping[str, str], cog: bool) -> dict[str, Target]:
        """Return one target for each output asked for."""
        found = {}
        for name in self._names:
            if name == "classes":
                more: dict[str, Any] = {"nodata": self._classes.nodata, "resampling": "nearest"}
                labels = {f"class_{i}": label for i, label in enumerate(self._task.outputs)}
                found[name] = self._ground.target(1, np.uint8, {**tags, **labels}, cog=cog, **more)
            else:
                outputs = self._task.outputs
                more = {"nodata": self._scores.nodata, "descriptions": outputs, "cog": cog}
                found[name] = self._ground.target(len(outputs), np.float32, tags, **more)
        return found

    def start(self) -> Written:
        """Return fresh counts."""
        return Written()

    def finish(self, reader: Reader, piece: Piece, answer: np.ndarray | None, to: Written) -> Arrays:
        """Mark pixels without data or outside the area; valid results keep clear of the mark."""
        valid, shape = self._valid(reader, piece), piece.shape
        wanted = self._plan.wanted(piece)
        if wanted is not None:
            valid &= wanted
        count = int(np.count_nonzero(valid))
        to.valid_pixels += count
        to.invalid_pixels += valid.size - count
        found: Arrays = {}
        for name in self._names:
            if name == "classes":
                best = np.zeros(shape, np.uint8) if answer is None else answer.argmax(axis=0).astype(np.uint8)
                self._classes.apply(best[None], valid[None])
                found[name] = (best[None], None)
            else:
                values = np.zeros((len(self._task.outputs), *shape), np.float32)
                if answer is not None:
                    values[:] = answer
                to.marks.merge(self._scores.apply(values, np.broadcast_to(valid, values.shape)))
                found[name] = (values, None)
        return found

    def _valid(self, reader: Reader, piece: Piece) -> np.ndarray:
        factor = self._plan.factor
        row, col = piece.top // factor, piece.left // factor
        rows, cols = -(-piece.bottom // factor) - row, -(-piece.right // factor) - col
        valid = reader.read_valid(row, col, rows, cols)
        together = valid.repeat(factor, axis=0).repeat(factor, axis=1)
        top, left = piece.top - row * factor, piece.left - col * factor
        return together[top : top + piece.shape[0], left : left + piece.shape[1]].copy()


def change_mask(scene: Scene, plan: RasterPlan, tags: Mapping[str, str], cog: bool) -> Target:
    """Return what a mask of change is: uint8, 1 change, 0 none; change_run.py makes it."""
    labels = {"class_0": "no change", "class_1": "change"}
    more: dict[str, Any] = {"nodata": class_marks().nodata, "descriptions": ("change",), "cog": cog}
    return ground(scene, plan).target(1, np.uint8, {**tags, **labels}, resampling="nearest", **more)


def _plain_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return a file's tags without those that describe the old pixels or that the writer sets itself."""
    return {k: v for k, v in tags.items() if not k.startswith("STATISTICS_") and k != "AREA_OR_POINT"}
