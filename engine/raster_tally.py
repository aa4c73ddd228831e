"""What a raster run changed: statistics of every pixel before and after, taken as rows are written.

No second reading: the writer hands over each window once. Windows may come in any order and on
several machines; :meth:`Tally.merge` puts parts together. Integers of 8 and 16 bits are counted value
by value, so their figures are exact; all others are summed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import minimum_filter

#: Longer side of the pictures in pixels; what a report shows on a screen.
SIZE = 1000
#: Bins of a histogram, over the stretch and a quarter of its range on both sides.
BINS, BEYOND = 256, 0.25
#: Rec. 601 weights of red, green and blue in luminance.
LUMINANCE = (0.299, 0.587, 0.114)


class Tally:
    """Accumulates (C, h, w) windows of raw values before and after a run.

    ``height``, ``width``: the output raster in pixels. ``lows``, ``highs``: the stretch in raw units,
    one value or one per band. Without ``detail`` only counts, mean, standard deviation and clipped
    shares are kept; with it also histograms and two pictures of every ``step``-th pixel.
    """

    def __init__(
        self, height: int, width: int, lows: Sequence[float], highs: Sequence[float], detail: bool = True
    ) -> None:
        """Start empty; bands and data type are those of the first window."""
        self.height, self.width, self.detail = height, width, detail
        self.lows, self.highs = tuple(map(float, lows)), tuple(map(float, highs))
        self.step = max(1, -(-max(height, width) // SIZE))
        self.valid_pixels = self.invalid_pixels = 0
        self.before: list[_Side] = []
        self.after: list[_Side] = []
        self.pictures: tuple[np.ndarray, np.ndarray] | None = None
        self.seen: np.ndarray | None = None

    def add(self, row: int, col: int, before: np.ndarray, after: np.ndarray, valid: np.ndarray) -> None:
        """Take over the window at ``row``, ``col``: raw values (C, h, w) of one dtype, valid (h, w).

        Windows must not overlap. Values where ``valid`` is False are not looked at.
        """
        assert before.shape == after.shape
        assert before.dtype == after.dtype
        self._start(len(before), before.dtype)
        count = int(np.count_nonzero(valid))
        self.valid_pixels += count
        self.invalid_pixels += valid.size - count
        if not count:
            return
        for sides, values in ((self.before, before), (self.after, after)):
            for side, band in zip(sides, values, strict=True):
                side.add(band, valid, count)
        if self.pictures is None or self.seen is None:
            return
        step = self.step
        top, left = -row % step, -col % step
        seen = valid[top::step, left::step]
        row, col = (row + top) // step, (col + left) // step
        place = np.s_[row : row + seen.shape[0], col : col + seen.shape[1]]
        self.seen[place] |= seen
        for picture, values in zip(self.pictures, (before, after), strict=True):
            np.copyto(picture[:, *place], values[:, top::step, left::step], where=seen)

    def merge(self, other: Tally) -> None:
        """Add the figures of disjoint windows of the same output, taken elsewhere."""
        assert (self.height, self.width, self.lows, self.highs, self.detail) == (
            other.height, other.width, other.lows, other.highs, other.detail,
        )  # fmt: skip
        self.valid_pixels += other.valid_pixels
        self.invalid_pixels += other.invalid_pixels
        if not other.before:
            return
        self._start(len(other.before), other.before[0].dtype)
        for mine, theirs in ((self.before, other.before), (self.after, other.after)):
            for side, more in zip(mine, theirs, strict=True):
                side.merge(more)
        if self.pictures is not None and self.seen is not None:
            assert other.pictures is not None
            assert other.seen is not None
            self.seen |= other.seen
            for picture, more_pixels in zip(self.pictures, other.pictures, strict=True):
                np.copyto(picture, more_pixels, where=other.seen)

    def figures(self, patch: int = 15) -> dict[str, Any]:
        """Return the figures, JSON-safe; None where no pixel is valid.

        ``bands``: per band ``mean``, ``std`` (population), ``clipped`` (share of valid pixels at or
        beyond either end of the stretch) and ``saturated`` (share at the smallest or largest value of
        an integer data type, None for floats), each with ``_before`` and ``_after``. ``look``, with
        detail: ``dark_channel``, ``contrast`` and ``entropy`` of the pictures (see :meth:`look`).
        """
        found: dict[str, Any] = {
            "valid_pixels": self.valid_pixels,
            "invalid_pixels": self.invalid_pixels,
            "bands": [],
        }
        for before, after in zip(self.before, self.after, strict=True):
            band: dict[str, Any] = {"low": before.low, "high": before.high}
            for when, side in (("before", before), ("after", after)):
                band.update({f"{name}_{when}": value for name, value in side.figures().items()})
            found["bands"].append(band)
        if self.detail:
            found["look"] = self.look(patch)
        return found

    def look(self, patch: int = 15) -> dict[str, Any] | None:
        """Return dark-channel mean, contrast and entropy before and after, from the pictures.

        In stretched units, clipped to 0..1. Dark channel: the least value over bands and ``patch``
        pixels of the raster - of which every ``step``-th is known - in mean over valid pixels.
        Contrast: standard deviation of luminance (Rec. 601 for three bands, else the mean band).
        Entropy: of luminance in 256 levels, in bits. None without a valid pixel.
        """
        if self.seen is None or not self.seen.any():
            return None
        side = 2 * round((patch // 2) / self.step) + 1
        found: dict[str, Any] = {"step": self.step, "patch": side}
        for when, image in zip(("before", "after"), self.stretched(), strict=True):
            image = np.clip(image, 0, 1)
            darkest = np.where(self.seen, image.min(0), 1)
            dark = minimum_filter(darkest, side, mode="nearest")[self.seen]
            pixels = image[:, self.seen].astype(float)
            weights = LUMINANCE if len(pixels) == len(LUMINANCE) else np.full(len(pixels), 1 / len(pixels))
            light = np.dot(weights, pixels)
            levels = np.bincount((light * 255 + 0.5).astype(int), minlength=256) / light.size
            levels = levels[levels > 0]
            found[f"dark_channel_{when}"] = float(dark.mean(dtype=float))
            found[f"contrast_{when}"] = float(light.std())
            found[f"entropy_{when}"] = float(-(levels * np.log2(levels)).sum()) + 0.0  # not -0
        return found

    def stretched(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the pictures in stretched units, not clipped: float32 (C, h, w), NaN where invalid."""
        assert self.pictures is not None
        assert self.seen is not None
        shape = (-1, 1, 1)
        lows = np.reshape([side.low for side in self.before], shape)
        ranges = np.reshape([side.high - side.low for side in self.before], shape)
        before, after = (
            np.where(self.seen, (picture - lows) / ranges, np.nan).astype(np.float32)
            for picture in self.pictures
        )
        return before, after

    def histograms(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return (edges (n + 1,) in raw units, counts before (n,), counts after (n,)) per band.

        At most 256 bins from a quarter of the stretch below to a quarter above; the first and last
        collect the rest. Of every pixel for integers of 8 and 16 bits, else of the pictures' pixels.
        """
        if self.pictures is None or self.seen is None:
            return []
        found = []
        for band, (before, after) in enumerate(zip(self.before, self.after, strict=True)):
            edges = _edges(before.low, before.high, before.dtype.kind in "iu")
            counts = [
                _binned(edges, side.values(), side.counts)
                if side.counts is not None
                else _binned(edges, picture[band][self.seen], None)
                for side, picture in zip((before, after), self.pictures, strict=True)
            ]
            found.append((edges, counts[0], counts[1]))
        return found

    def _start(self, bands: int, dtype: np.dtype) -> None:
        if self.before:
            assert (len(self.before), self.before[0].dtype) == (bands, dtype)
            return
        lows, highs = (np.broadcast_to(ends, bands).tolist() for ends in (self.lows, self.highs))
        self.before, self.after = (
            [_Side(dtype, low, high) for low, high in zip(lows, highs, strict=True)] for _ in range(2)
        )
        if self.detail:
            shape = (-(-self.height // self.step), -(-self.width // self.step))
            self.pictures = np.zeros((bands, *shape), dtype), np.zeros((bands, *shape), dtype)
            self.seen = np.zeros(shape, bool)


class _Side:
    """One band, before or after: ``counts`` of every value, or sums where there are too many."""

    def __init__(self, dtype: np.dtype, low: float, high: float) -> None:
        self.dtype, self.low, self.high = np.dtype(dtype), low, high
        self.number = 0
        self.counts: np.ndarray | None = None
        if self.dtype.kind in "iu" and self.dtype.itemsize <= 2:
            self.counts = np.zeros(1 << 8 * self.dtype.itemsize, np.int64)
        # sums of value - shift: near the values, so that the variance does not cancel
        self.shift = (low + high) / 2
        self.sum = self.squares = 0.0
        self.clipped = self.saturated = 0

    def add(self, values: np.ndarray, valid: np.ndarray, number: int) -> None:
        self.number += number
        if self.counts is not None:
            self.counts += _value_counts(values, valid, number)
            return
        off = np.subtract(values, self.shift, dtype=np.float64)
        if number < values.size:
            np.copyto(off, 0, where=~valid)  # cheaper than picking the valid ones, and counted nowhere below
        flat = off.reshape(-1)
        self.sum += float(flat.sum())
        self.squares += float(flat @ flat)
        self.clipped += _beyond(flat, self.low - self.shift, self.high - self.shift)
        if self.dtype.kind in "iu":
            ends = np.iinfo(self.dtype)
            self.saturated += _beyond(flat, ends.min - self.shift, ends.max - self.shift)

    def merge(self, other: _Side) -> None:
        self.number += other.number
        if self.counts is not None:
            self.counts += other.counts
        self.sum += other.sum
        self.squares += other.squares
        self.clipped += other.clipped
        self.saturated += other.saturated

    def values(self) -> np.ndarray:
        """Return the value that each of ``counts`` is of."""
        ends = np.iinfo(self.dtype)
        return np.arange(ends.min, ends.max + 1, dtype=np.int64)

    def figures(self) -> dict[str, float | None]:
        n = self.number
        integers = self.dtype.kind in "iu"
        if not n:
            return dict.fromkeys(("mean", "std", "clipped", "saturated"))
        if self.counts is None:
            mean = self.sum / n
            variance = max(0.0, self.squares / n - mean**2)
            mean += self.shift
            clipped, saturated = self.clipped, self.saturated
        else:
            values = self.values()
            total = int(self.counts @ values)
            # Python's integers: n times the sum of squares outgrows 64 bits
            squares = int(self.counts @ values**2)
            mean, variance = total / n, (n * squares - total**2) / n**2
            clipped = int(self.counts[(values <= self.low) | (values >= self.high)].sum())
            saturated = int(self.counts[0] + self.counts[-1])
        return {
            "mean": mean,
            "std": variance**0.5,
            "clipped": clipped / n,
            "saturated": saturated / n if integers else None,
        }


def _beyond(values: np.ndarray, low: float, high: float) -> int:
    return int(np.count_nonzero(values <= low) + np.count_nonzero(values >= high))


def _value_counts(values: np.ndarray, valid: np.ndarray, number: int) -> np.ndarray:
    """Count each value of an 8- or 16-bit band, from the data type's smallest on."""
    if number < values.size:
        # made zeros and taken off again: three times faster than picking the valid ones
        values = np.multiply(values, valid, dtype=values.dtype)
    counts = _plain_counts(values)
    counts[0] -= values.size - number
    return np.roll(counts, len(counts) // 2) if values.dtype.kind == "i" else counts


def _plain_counts(values: np.ndarray) -> np.ndarray:
    """Count the bit patterns of values, read as unsigned integers."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.itemsize == 2:
        return np.bincount(flat.view(np.uint16), minlength=1 << 16)
    flat = flat.view(np.uint8)
    if flat.size < 1 << 16:
        return np.bincount(flat, minlength=1 << 8)
    # two neighbours as one number: half as many to count, 0.9 instead of 1.3 ms for 1 Mpx
    even = flat.size // 2 * 2
    pairs = np.bincount(flat[:even].view(np.uint16), minlength=1 << 16).reshape(1 << 8, 1 << 8)
    return pairs.sum(0) + pairs.sum(1) + np.bincount(flat[even:], minlength=1 << 8)


def _edges(low: float, high: float, integers: bool) -> np.ndarray:
    """Return bin edges; integers get bins of whole numbers, as others would show a comb."""
    first, last = low - BEYOND * (high - low), high + BEYOND * (high - low)
    if not integers:
        return np.linspace(first, last, BINS + 1)
    first, last = np.floor(first), np.ceil(last)
    width = max(1, -(-(last - first + 1) // BINS))
    return first - 0.5 + width * np.arange(-(-(last - first + 1) // width) + 1)


def _binned(edges: np.ndarray, values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Count values, each ``weights`` times, in bins of one width; the ends collect what lies beyond."""
    bins = len(edges) - 1
    place = np.floor((values - edges[0]) / (edges[1] - edges[0]))
    return np.bincount(np.clip(place, 0, bins - 1).astype(int), weights, bins).astype(np.int64)
