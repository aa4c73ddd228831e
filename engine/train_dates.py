"""Two dates of one ground and the changes outlined between them, opened to be learned from.

They are laid on each other, stretched and refused as a prediction with the weights will do it
(roles.py, pairs.py, matching.py); polygons are drawn on the common grid, crop by crop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..models.task import Task
from ..models.trainable import Crops, Training
from .crops import Cut, collect, scaled, split
from .drivers import check_path
from .errors import EngineError
from .events import Track
from .grid import Tile
from .heap import give_back
from .job import Job
from .joined import Joined
from .land import Land, read_land
from .matching import pair_stretch
from .misregistration import NOTABLE, measure
from .roles import open_rasters, settle
from .scaling import Scaling
from .scene import Scene, Stamp
from .statistics import band_statistics
from .stretch import outside_warning
from .train_material import Named, check_roles


@dataclass(frozen=True, eq=False)
class Dates:
    """Two dates on the earlier one's grid, cut to the ground they share, and ``drawn``, what changed."""

    training: Training
    task: Task
    scene: Joined
    drawn: Land
    labels: Path
    typed: dict[str, str]
    real: bool = True

    @property
    def title(self) -> str:
        """Return the dates' names."""
        return self.scene.title

    @property
    def named(self) -> list[Named]:
        """Return both dates with their bands, and the polygon layer."""
        dates = [Named(layer.role, layer.scene.path, layer.scene.bands) for layer in self.scene.layers]
        return [*dates, Named(self.training.labels, self.labels, ())]

    @property
    def first(self) -> Scene:
        """Return the common grid."""
        return self.scene

    @property
    def stamps(self) -> Sequence[Stamp]:
        """Return every file, that of the polygons too."""
        return self.scene.stamps

    def stretch(self, track: Track) -> tuple[Scaling, ...]:
        """Fix one stretch for both dates, from both, as a prediction on them would."""
        scene = self.scene
        with track.stage("statistics", 0.03):
            # bytes are stretched from 0 to 255 whatever they are: their percentiles are worth no second
            plain = self.task.inputs[0].scale.mode == "auto" and is_bytes(scene)
            found = band_statistics(scene, None, track, brief=plain)
            scalings = pair_stretch(self.task, scene, found, False)
            warning = outside_warning(scalings, found, scene.labels)
            if warning:
                track.warn(warning)
            give_back()
        count = len(scene.layers[0].scene.bands)
        tell_stretch(scene.layers[0].scene.bands, scalings[:count], track)
        return scalings[:count]

    def cut(self, scalings: Sequence[Scaling], side: int, track: Track, share: tuple[float, float]) -> Cut:
        """Cut crops that are valid in every band of both dates, with the changes drawn on them."""
        scene, label = self.scene, self.training.labels
        rows, cols = scene.height // side, scene.width // side
        raw = is_bytes(scene) and all(scaling.mode == "uint8" for scaling in scalings)
        kind = np.dtype(np.uint8 if raw else np.float32)
        layers = {role: (part.stop - part.start, kind) for role, part in scene.parts.items()}
        layers[label] = (1, np.dtype(np.uint8))
        with scene.reader() as reader:

            def take(index: int) -> dict[str, np.ndarray] | None:
                row, col = (part * side for part in divmod(index, cols))
                values, valid = reader.read_bands(row, col, side, side)
                if not valid.all():
                    return None
                images = {
                    role: values[part] if raw else scaled(values[part], scalings)
                    for role, part in scene.parts.items()
                }
                mask = self.drawn.mask(Tile(0, 0, row, col, side, side), (side, side))
                return {**images, label: mask[None]}

            images, kept, looked = collect(rows * cols, layers, side, take, track, share)
        places = [(index // cols, index % cols) for index in kept]
        validation, block = split(places, images[label].sum(axis=(1, 2, 3), dtype=float))
        corners = tuple((row * side, col * side) for row, col in places)
        return Cut(Crops(images, validation), corners, looked, rows * cols, block)

    def check_unchanged(self) -> None:
        """Raise EngineError when a file was modified."""
        self.scene.check_unchanged()


def open_dates(job: Job, training: Training, track: Track) -> Dates:
    """Open both dates and read the polygons; raises EngineError for what cannot be learned from."""
    check_roles(job, training)
    first, second = (each.role for each in training.inputs)
    task = as_predicted(training)
    scene = open_rasters(job)
    assert isinstance(scene, Joined)
    try:
        scene = settle(task, scene, job, track)
    except EngineError as error:  # a training matches no histograms
        hint = error.hint.replace(", or set MATCH_RADIOMETRY", "")
        raise type(error)(error.code, error.message, hint) from None
    one, other = (layer.scene for layer in scene.layers)
    if one.path.samefile(other.path) and one.bands == other.bands:
        raise EngineError(
            "parameter",
            f"{first.upper()} and {second.upper()} are the same raster ({one.path.name}), so no change could "
            "be learned.",
            "Choose rasters of two dates.",
        )
    _warn_of_shift(scene, track)
    label = training.labels
    path = check_path(job.inputs[label]["path"], "polygon layer")
    drawn = read_land(str(path), 0.0, scene, track, label.upper(), content="")
    if not len(drawn.parts):
        raise EngineError(
            "parameter",
            f"No polygon of {label.upper()} {path.name} lies on the ground that {scene.title} share.",
            "Choose the polygons of this ground, or check their CRS.",
        )
    status = path.stat()
    stamp = Stamp(path, status.st_size, status.st_mtime_ns)
    scene = dataclasses.replace(scene, stamps=(*scene.stamps, stamp))
    names = {layer.role.upper(): layer.scene.path.name for layer in scene.layers}
    typed = {role: list(job.inputs[role].get("bands") or []) for role in (first, second)}
    return Dates(training, task, scene, drawn, path, {**names, label.upper(): path.name, **bands(typed)})


def as_predicted(training: Training) -> Task:
    """Return the task that the weights will be for, as far as opening and stretching ask for it."""
    return Task(
        name=training.name,
        inputs=training.inputs,
        kind="scores",
        tile=training.crop,
        multiple=1,
        margin=0,
        shrinkable=False,
        outputs=(training.labels,),
        prepare=_never,
        predict=_never,
        pair=True,
    )


def is_bytes(scene: Scene) -> bool:
    """Return whether all chosen bands hold 8-bit counts."""
    return all(scene.dtypes[band - 1] == np.uint8 for band in scene.bands)


def bands(typed: dict[str, list[int]]) -> dict[str, str]:
    """Return BANDS_BEFORE and the like, as typed."""
    return {f"BANDS_{role.upper()}": ",".join(map(str, chosen)) for role, chosen in typed.items() if chosen}


def tell_stretch(numbers: Sequence[int], scalings: Sequence[Scaling], track: Track) -> None:
    """Log the stretch of each band."""
    for band, scaling in zip(numbers, scalings, strict=True):
        track.info(f"Stretch of band {band}: {scaling.low:.6g} to {scaling.high:.6g}, from {scaling.source}.")


def _warn_of_shift(scene: Joined, track: Track) -> None:
    found = measure(scene, track)
    if found is None or not found.clear:
        return
    first, second = scene.layers[:2]
    where = f"{found.shift[0]:+.2f}, {found.shift[1]:+.2f} pixels (right, down)"
    told = f"{second.name} lies {where} beside {first.name} (peak quality {found.quality:.1f})"
    if found.distance > NOTABLE:
        track.warn(f"{told}: outlines drawn on one date miss the other; register the dates first.")
    else:
        track.info(f"{told}.")


def _never(_: object) -> list[np.ndarray]:
    raise NotImplementedError
