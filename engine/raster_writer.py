"""Write a raster window by window, and believe nothing before it was read back.

A full disk is silent in GDAL at closing and while overviews are built: the file opens, and its last
tiles are zeros or missing (measured; ENGINE.md, section 1). So a checksum of every window is kept
while it is written, and every window and overview is read again before the file may be renamed.
"""

from __future__ import annotations

import itertools
import os
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.shutil import copy as copy_dataset
from rasterio.windows import Window

from .drivers import gdal_env
from .errors import Cancelled, EngineError
from .events import Track
from .output_checks import check_space
from .parts import sync_file
from .raster_profile import (
    BLOCK,
    creation_profile,
    level,
    overview_bytes,
    overview_levels,
    predictor,
    size_bound,
)
from .raster_target import Target
from .raster_verify import check_overviews, check_profile

__all__ = ["BLOCK", "RasterWriter", "Target"]

#: Threads for overviews and for reading back (each takes 0.6 of the time, 12 Mpx of 3 bytes), when the
#: model no longer needs them. Never for writing itself: a full disk is silent there (ENGINE.md,
#: section 1), while overviews are decoded again before anybody sees them.
THREADS = 2

#: Tags that tell of other pixels: old statistics, and tuples that mean "no data" (they are a mask here).
_FOREIGN_TAGS = ("STATISTICS_", "NODATA_VALUES", "OVR_RESAMPLING_ALG")

#: Bytes that show why GDAL could not write: a full disk, a quota, a limit on the file's size.
_PROBE_BYTES = 1 << 20


class RasterWriter:
    """One GeoTIFF in the making at ``path``; ``name`` is what messages call it.

    Used by one thread at a time. Leaving it as a context closes the file; removing it is up to
    :class:`.parts.Parts`.
    """

    def __init__(self, target: Target, path: Path, cancel: threading.Event, name: str = "") -> None:
        """Create the file; raises EngineError when that is impossible."""
        self.target = target
        self.path = path
        self.name = name or path.name
        self._cancel = cancel
        self._nodata = target.nodata
        self._sums: dict[tuple[int, int, int, int], tuple[int, int | None]] = {}
        self._dataset: Any = None
        with self._told("be created"), _env():
            self._dataset = rasterio.open(path, "w", **creation_profile(target))
            _describe(self._dataset, target)

    def write(self, row: int, col: int, values: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Write ``values`` (C, h, w) and, for a target with a mask, ``mask`` (h, w), True = data.

        Windows start on multiples of BLOCK and end there or at the raster's edge, so that no tile is
        packed twice; each pixel comes once. Raises EngineError, or Cancelled.
        """
        self._check_cancel()
        target = self.target
        count, height, width = values.shape
        assert count == target.count, (count, target.count)
        assert values.dtype == target.type, (values.dtype, target.type)
        assert row % BLOCK == 0 == col % BLOCK, (row, col)
        assert row + height == target.height or (height % BLOCK == 0 and row + height < target.height)
        assert col + width == target.width or (width % BLOCK == 0 and col + width < target.width)
        assert (mask is not None) == target.mask
        key = (row, col, height, width)
        assert key not in self._sums, key
        window = Window(col, row, width, height)
        shown = None if mask is None else _as_mask(mask)
        self._sums[key] = (_checksum(values), None if shown is None else _checksum(shown))
        with self._told("be written"), _env():
            self._dataset.write(values, window=window)
            if shown is not None:
                self._dataset.write_mask(shown, window=window)

    def declare_nodata(self, value: float | int) -> None:
        """Declare the nodata value of a target that had none: streaming learns late that a pixel needs it."""
        assert self._nodata is None or self._nodata == value, (self._nodata, value)
        self._nodata = value

    def finish(self, track: Track, start: float = 0.9, end: float = 0.99) -> None:
        """Close, add overviews, convert to a COG if asked, and read everything again.

        ``start`` and ``end``: the shares of the run at which this begins and ends, for the progress.
        Raises EngineError, or Cancelled between steps; the part is then worthless.
        """
        written = sum(height * width for _, _, height, width in self._sums)
        assert written == self.target.width * self.target.height, "windows are missing"
        with track.stage("finishing the raster", start):
            with self._told("be closed"), _env():
                if self._nodata is not None and self._nodata != self.target.nodata:
                    self._dataset.nodata = self._nodata
                self.close()
        levels = overview_levels(self.target)
        if levels:
            with track.stage("overviews", start + 0.1 * (end - start)):
                self._build_overviews(levels)
        if self.target.cog:
            with track.stage("COG", start + 0.4 * (end - start)):
                self._convert(track)
        with self._told("be forced to the disk"):
            sync_file(self.path)  # what a network drive refuses it refuses here at the latest
        share = 0.6 if self.target.cog else 0.4
        with track.stage("checking the raster", start + share * (end - start)):
            self._verify(track, start + share * (end - start), end, levels)

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        dataset, self._dataset = self._dataset, None
        if dataset is not None:
            dataset.close()

    def __enter__(self) -> RasterWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; after an error whatever closing says is no news."""
        with suppress(Exception):
            self.close()

    def _build_overviews(self, levels: list[int]) -> None:
        resampling = Resampling[self.target.resampling]
        # a disk that fills up meanwhile is silent, and with a mask GDAL 3.10 crashes (observed)
        check_space(self.path.parent, overview_bytes(self.target), f"The overviews of {self.name}")
        self._check_cancel()
        # all levels in one call: GDAL then makes each from the one before; one by one takes twice as long
        with (
            self._told("take its overviews"),
            _env(),
            rasterio.Env(ZLEVEL_OVERVIEW=level(self.target), GDAL_NUM_THREADS=THREADS),
            rasterio.open(self.path, "r+") as dataset,
        ):
            dataset.build_overviews(levels, resampling)

    def _convert(self, track: Track) -> None:
        """Replace the finished file by a COG with the same pixels and overviews."""
        plain = self.path.with_name(self.path.stem + ".plain" + self.path.suffix)
        aux = self.path.with_name(self.path.name + ".aux.xml")
        # GDAL removes a COG that failed, so that the disk is no longer full when one asks why
        check_space(self.path.parent, size_bound(self.target) // 2, f"{self.name} as a COG")
        with self._told("be converted to a COG"), _env():
            os.replace(self.path, plain)
            with suppress(FileNotFoundError):  # the copy writes one of its own
                os.replace(aux, plain.with_name(plain.name + ".aux.xml"))
            copy_dataset(
                plain, self.path, driver="COG", compress="DEFLATE", level=level(self.target),
                predictor=predictor(self.target), bigtiff="IF_SAFER", overviews="AUTO",
                overview_resampling=self.target.resampling,
            )  # fmt: skip
            plain.unlink()
            plain.with_name(plain.name + ".aux.xml").unlink(missing_ok=True)
        track.check()

    def _verify(self, track: Track, start: float, end: float, levels: list[int]) -> None:
        """Compare the closed file with what was meant to be in it; raises EngineError."""
        with self._told("be read back"), _env(), rasterio.open(self.path) as dataset:
            wrong = check_profile(dataset, self.target, self._nodata, levels)
        if wrong:
            raise self._damaged(wrong)
        done = itertools.count(1)

        def compare(keys: list[tuple[int, int, int, int]]) -> str:
            with _env(), rasterio.open(self.path) as dataset:
                for key in keys:
                    self._check_cancel()
                    if _read_sums(dataset, key, self.target.mask) != self._sums[key]:
                        return f"rows {key[0]}-{key[0] + key[2]} read back as other values"
                    count, total = next(done), len(self._sums)
                    fraction = start + (end - start) * count / total
                    track.progress(fraction, count, total, "checking the raster", None)
            return ""

        def overviews() -> str:
            with _env():
                return check_overviews(self.path, self.target, levels, self._check_cancel)

        keys = list(self._sums)
        with self._told("be read back"), ThreadPoolExecutor(THREADS, "kestrel-check") as pool:
            jobs = [pool.submit(compare, keys[i::THREADS]) for i in range(THREADS)]
            jobs.append(pool.submit(overviews))
            found = [job.result() for job in jobs]
        for wrong in filter(None, found):
            raise self._damaged(wrong)

    def _check_cancel(self) -> None:
        if self._cancel.is_set():
            raise Cancelled

    def _damaged(self, what: str) -> EngineError:
        cause = _why_not_written(self.path)
        return EngineError(
            "output",
            f"{self.name} was not written completely: {cause or what}.",
            "Free some space or choose another folder." if cause else "Check the disk and run again.",
        )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn what GDAL and the operating system raise into a sentence about this file."""
        try:
            yield
        except (EngineError, Cancelled, MemoryError, AssertionError):
            raise
        except Exception as error:
            cause = _why_not_written(self.path)
            raise EngineError(
                "output",
                f"{self.name} cannot {what}: {cause or _text(error)}.",
                "Free some space or choose another folder." if cause else "Choose another folder or disk.",
            ) from error


@contextmanager
def _env() -> Iterator[None]:
    with gdal_env(), rasterio.Env(
        GDAL_TIFF_INTERNAL_MASK=True, GDAL_TIFF_OVR_BLOCKSIZE=BLOCK, GDAL_NUM_THREADS=1
    ):  # fmt: skip
        yield


def _describe(dataset: Any, target: Target) -> None:
    """Set everything about the bands that is no creation option."""
    if target.colormap is not None:
        dataset.write_colormap(1, dict(target.colormap))
    if target.colorinterp and target.colormap is None:
        dataset.colorinterp = target.colorinterp
    for name in ("units", "scales", "offsets"):
        given = getattr(target, name)
        if given:
            setattr(dataset, name, tuple("" if value is None else value for value in given))
    for band, text in enumerate(target.descriptions, 1):
        if text:
            dataset.set_band_description(band, text)
    if target.tags:
        dataset.update_tags(**_own(target.tags))
    for band, tags in enumerate(target.band_tags, 1):
        if tags:
            dataset.update_tags(band, **_own(tags))


def _own(tags: Any) -> dict[str, str]:
    return {name: str(value) for name, value in tags.items() if not name.startswith(_FOREIGN_TAGS)}


def _as_mask(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, np.uint8(255), np.uint8(0))


def _checksum(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)


def _read_sums(dataset: DatasetReader, key: tuple[int, int, int, int], mask: bool) -> tuple[int, int | None]:
    row, col, height, width = key
    window = Window(col, row, width, height)
    values = dataset.read(window=window)
    return _checksum(values), _checksum(dataset.read_masks(1, window=window)) if mask else None


def _why_not_written(path: Path) -> str:
    """Return the operating system's reason why ``path`` cannot grow, "" when it can.

    GDAL says "write error" and no more, so the file, which is lost anyway, is written to once more.
    """
    try:
        with path.open("ab") as stream:
            end = stream.tell()
            stream.write(bytes(_PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
            stream.truncate(end)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _text(error: BaseException) -> str:
    # rasterio hides GDAL's words behind "Write failed. See previous exception for details."
    cause = error.__cause__ or error.__context__ or error
    return str(cause).strip().rstrip(".").replace("\n", " ")
