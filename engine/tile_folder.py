"""Images of two dates with their labels to learn from: one stretch for all, crops image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from ..models.trainable import Crops, Training
from .crops import BLOCK_SIDES, FOLDS, Cut, collect, hold_out, marked_both, scaled, split
from .errors import EngineError
from .events import Track
from .scaling import Scaling
from .scene import Reader, Scene, Stamp
from .statistics import BLOCKS, SAMPLES, Statistics, lattice
from .stretch import outside_warning, resolve_stretch
from .train_dates import is_bytes, tell_stretch
from .train_material import Named


@dataclass(frozen=True, eq=False)
class TileFolder:
    """Images of both dates with their labels: ``images`` holds role -> scene for each name."""

    training: Training
    folder: Path
    images: Mapping[str, Mapping[str, Scene]]
    typed: dict[str, str]
    real: bool = True

    @property
    def title(self) -> str:
        """Return what messages call it."""
        return f"The {len(self.images)} images of FOLDER {self.folder.name}"

    @property
    def named(self) -> list[Named]:
        """Return the sub-folders; bands of the first image."""
        first = next(iter(self.images.values()))
        return [
            Named(role, self.folder / sub, () if role == self.training.labels else first[role].bands)
            for role, sub in self.training.folders.items()
        ]

    @property
    def first(self) -> Scene:
        """Return the first image's earlier date."""
        return next(iter(self.images.values()))[self.training.inputs[0].role]

    @property
    def stamps(self) -> list[Stamp]:
        """Return every file."""
        return [stamp for image in self.images.values() for scene in image.values() for stamp in scene.stamps]

    @property
    def dates(self) -> list[Scene]:
        """Return all images of both dates."""
        return [image[each.role] for image in self.images.values() for each in self.training.inputs]

    def stretch(self, track: Track) -> tuple[Scaling, ...]:
        """Fix one stretch for all images of both dates."""
        scale = self.training.inputs[0].scale
        numbers = self.first.bands
        with track.stage("statistics", 0.03):
            plain = scale.mode == "auto" and all(map(is_bytes, self.dates))
            found = _BYTES * len(numbers) if plain else self._sampled(track)
            scalings = resolve_stretch(scale, found, numbers)
            warning = outside_warning(scalings, found, numbers)
            if warning:
                track.warn(warning)
        tell_stretch(numbers, scalings, track)
        return scalings

    def _sampled(self, track: Track) -> tuple[Statistics | None, ...]:
        """Return statistics of each band over images that are spread evenly over all of both dates."""
        scenes = self.dates
        chosen = [scenes[i] for i in np.unique(np.linspace(0, len(scenes) - 1, BLOCKS).astype(int))]
        cells = max(1, BLOCKS // len(chosen))
        parts = []
        for number, scene in enumerate(chosen):
            track.check()
            track.progress(0, number, len(chosen), "statistics", None)
            every = lattice(scene, (0, 0, scene.height, scene.width))
            with scene.reader() as reader:
                for cell in every[:: -(-len(every) // cells)]:
                    values, valid = reader.read_bands(*cell)
                    there = values[:, valid.all(axis=0)]
                    most = max(1, SAMPLES // len(values) // len(chosen) // cells)
                    parts.append(there[:, :: max(1, -(-there.shape[1] // most))])
        samples = np.sort(np.concatenate(parts, axis=1), axis=1)
        if not samples.shape[1]:
            return (None,) * len(samples)
        for number, band in enumerate(samples, 1):
            if band[0] == band[-1]:
                raise EngineError(
                    "input",
                    f"Band {number} of 3 is constant in all images of FOLDER {self.folder.name} (all valid "
                    f"pixels are {band[0]:g}).",
                    "Choose other bands or another folder.",
                )
        source = f"{len(chosen)} images of both dates"
        return tuple(Statistics(band, source) for band in samples)

    def cut(self, scalings: Sequence[Scaling], side: int, track: Track, share: tuple[float, float]) -> Cut:
        """Cut crops that are valid in both dates and the label, image by image."""
        label = self.training.labels
        raw = all(map(is_bytes, self.dates)) and all(scaling.mode == "uint8" for scaling in scalings)
        kind = np.dtype(np.uint8 if raw else np.float32)
        layers = {each.role: (each.bands, kind) for each in self.training.inputs}
        layers[label] = (1, np.dtype(np.uint8))
        every = list(self.images.values())
        sizes = [(image[label].height // side, image[label].width // side) for image in every]
        ends = np.array([*accumulate(rows * cols for rows, cols in sizes)])

        def place(index: int) -> tuple[int, int, int]:
            """Return which image a crop is of, and its row and column in crops."""
            number = int(np.searchsorted(ends, index, side="right"))
            first = int(ends[number - 1]) if number else 0
            return number, *divmod(index - first, sizes[number][1])

        with _Open() as readers:

            def take(index: int) -> dict[str, np.ndarray] | None:
                number, row, col = place(index)
                window = row * side, col * side, side, side
                images = {}
                for role, reader in readers.of(number, every[number]).items():
                    values, valid = reader.read_bands(*window)
                    if role == label:
                        images[role], valid = _marks(values, valid, every[number][label].validity.nodata)
                    else:
                        images[role] = values if raw else scaled(values, scalings)
                    if not valid.all():
                        return None
                return images

            images, kept, looked = collect(int(ends[-1]), layers, side, take, track, share)
        places = [place(index) for index in kept]
        validation, block = _held_out(places, images[label].sum(axis=(1, 2, 3), dtype=float))
        corners = tuple((row * side, col * side) for _, row, col in places)
        return Cut(Crops(images, validation), corners, looked, int(ends[-1]), block)

    def check_unchanged(self) -> None:
        """Raise EngineError when a file was modified."""
        for image in self.images.values():
            for scene in image.values():
                scene.check_unchanged()


#: What stands for the statistics of bytes, which are stretched from 0 to 255 whatever they are.
_BYTES = (Statistics(np.array([0, 255], np.uint8), "the data type"),)


def _marks(
    values: np.ndarray, valid: np.ndarray, nodata: float | int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (changed, known), bool (1, H, W), of a label's bands.

    Any band that is not 0 says "changed", a transparent pixel says that nothing did, as an untouched
    canvas is. 0 declared as nodata is no different from 0; another nodata value is not known.
    """
    changed = (values != 0).any(axis=0) & valid.all(axis=0)
    known = np.isfinite(values).all(axis=0)
    if nodata not in (None, 0):
        known &= valid.all(axis=0)
    return changed[None], known[None]


def _held_out(places: Sequence[tuple[int, int, int]], marks: np.ndarray) -> tuple[np.ndarray, int]:
    """Return bool (N,), True for validation, and the side of a block, 0 for whole images.

    A run of images that follow each other by name: tiles of one scene mostly do, and look alike. Where
    that leaves a part without marks - one image alone, or changes in one only - blocks of images.
    """
    images = sorted({image for image, _, _ in places})
    groups = min(FOLDS, len(images))
    fold = {image: number * groups // len(images) for number, image in enumerate(images)}
    held_out = hold_out(np.array([fold[image] for image, _, _ in places]), marks)
    if held_out is not None and marked_both(held_out, marks):
        return held_out, 0
    # one below the other, so that no block holds crops of two images
    rows = 1 + max((row for _, row, _ in places), default=0)
    step = -(-rows // BLOCK_SIDES[0]) * BLOCK_SIDES[0]
    return split([(image * step + row, col) for image, row, col in places], marks)


class _Open:
    """The readers of one image at a time."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._number = -1
        self._readers: dict[str, Reader] = {}

    def __enter__(self) -> _Open:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def of(self, number: int, image: Mapping[str, Scene]) -> dict[str, Reader]:
        """Return role -> reader of an image, those of another one closed."""
        if number != self._number:
            self._stack.close()
            self._readers = {role: self._stack.enter_context(scene.reader()) for role, scene in image.items()}
            self._number = number
        return self._readers
