"""The scene: what is known of one raster before a tile is read, and how its windows are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from .drivers import check_path, gdal_env, open_dataset, source_files
from .errors import EngineError, ReadError
from .georef import Georef, read_georef
from .validity import KnownMasks, Validity, validity

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True)
class Stamp:
    """A file as it was found: a change of size or time during the run makes the result void."""

    path: Path
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Scene:
    """The chosen bands of one raster, described. Holds no open file, so threads may share it.

    ``bands``: numbers from 1, in the order in which a model wants them. ``dtypes``, ``validities``: of
    every band of the file, the first at index 0. ``block``: (rows, columns) of the file's own blocks.
    ``notes``: what the user should be warned of; ``band_notes``: the same where one band is read as
    measured values. ``stamps``: the file and, for a VRT, every file below it.
    """

    path: Path
    bands: tuple[int, ...]
    width: int
    height: int
    dtypes: tuple[np.dtype, ...]
    block: tuple[int, int]
    validities: tuple[Validity, ...]
    georef: Georef
    stamps: tuple[Stamp, ...]
    notes: tuple[str, ...]
    band_notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Return how many bands the file has."""
        return len(self.dtypes)

    @property
    def band(self) -> int:
        """Return the first chosen band."""
        return self.bands[0]

    @property
    def title(self) -> str:
        """Return what messages call the scene."""
        return self.path.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Return what messages call the chosen bands, behind the word "band"."""
        return tuple(map(str, self.bands))

    @property
    def dtype(self) -> np.dtype:
        """Return the first chosen band's dtype."""
        return self.dtypes[self.band - 1]

    @property
    def validity(self) -> Validity:
        """Return how to tell the first chosen band's valid pixels."""
        return self.validities[self.band - 1]

    def with_bands(self, bands: Sequence[int]) -> Scene:
        """Return the same scene with other bands chosen; raises EngineError for one that is not there."""
        with gdal_env(), open_dataset(self.path) as dataset:
            _check_bands(dataset, self.path, bands)
        return replace(self, bands=tuple(bands))

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Open the raster for the current thread; every thread needs a handle of its own."""
        with gdal_env(), open_dataset(self.path) as dataset:
            yield Reader(self, dataset)

    def check_unchanged(self) -> None:
        """Raise EngineError when a file was modified since the scene was opened."""
        for stamp in self.stamps:
            try:
                now = _stamp(stamp.path)
            except OSError:
                now = None
            if now != stamp:
                raise EngineError(
                    "input",
                    f"{stamp.path} was changed while it was being read, so the result was thrown away.",
                    "Run again when the file is complete.",
                )


class Reader:
    """An open scene: reads windows and says which of their pixels are valid."""

    def __init__(self, scene: Scene, dataset: DatasetReader) -> None:
        """Wrap a dataset opened by :meth:`Scene.reader`."""
        self.scene = scene
        self._dataset = dataset

    def read(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (values in the file's dtype, valid bool) of the first band, both (height, width).

        The window must lie inside the raster. Raises EngineError naming file and window when the
        file is truncated or damaged there.
        """
        values, valid = self.read_bands(row, col, height, width, self.scene.bands[:1])
        return values[0], valid[0]

    def read_valid(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Return bool (height, width): where every chosen band has data."""
        return self.read_bands(row, col, height, width)[1].all(axis=0)

    def read_bands(
        self, row: int, col: int, height: int, width: int, bands: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (values, valid bool), both (C, height, width), of ``bands`` or the chosen ones.

        Bands of different dtypes come in one that holds them all. Raises as :meth:`read` does.
        """
        scene = self.scene
        bands = scene.bands if bands is None else bands
        assert row >= 0 <= col
        assert row + height <= scene.height
        assert col + width <= scene.width
        window = Window(col, row, width, height)
        try:
            if len({scene.dtypes[band - 1] for band in bands}) == 1:
                values = parts = self._dataset.read(list(bands), window=window)
            else:  # rasterio reads bands of one dtype only together
                parts = [self._dataset.read(band, window=window) for band in bands]
                values = np.stack(parts)
            known = KnownMasks(self._dataset, window)
            # before the bands share a dtype: nodata is compared in the band's own
            valid = np.stack(
                [scene.validities[b - 1].valid(known, part) for b, part in zip(bands, parts, strict=True)]
            )
        except RasterioError as error:
            named = f"band {bands[0]}" if len(bands) == 1 else f"bands {', '.join(map(str, bands))}"
            raise ReadError(
                "input",
                f"{scene.path} cannot be read at rows {row}-{row + height}, columns {col}-{col + width} "
                f"of {named}: {_cause(error)}.",
                "The file is truncated or damaged: copy or download it again.",
            ) from None
        return values, valid


def open_scene(path: str, bands: int | Sequence[int]) -> Scene:
    """Look at a raster and return its description; raises EngineError for what cannot be used."""
    file = check_path(path)
    chosen = (bands,) if isinstance(bands, int) else tuple(bands)
    stamps = tuple(_stamp(file) for file in _sources(file))
    with gdal_env(), open_dataset(file) as dataset:
        if dataset.count == 0:
            raise EngineError(
                "input",
                f"{file.name}: Raster has no readable band.",
                "Choose one of its subdatasets, or another file.",
            )
        _check_bands(dataset, file, chosen)
        georef = read_georef(dataset)
        return Scene(
            path=file,
            bands=chosen,
            width=dataset.width,
            height=dataset.height,
            dtypes=tuple(_dtype(name) for name in dataset.dtypes),
            block=dataset.block_shapes[chosen[0] - 1],
            validities=tuple(validity(dataset, band) for band in dataset.indexes),
            georef=georef,
            stamps=stamps,
            notes=georef.notes,
            band_notes=tuple(_band_notes(dataset, chosen[0])),
        )


def _dtype(name: str) -> np.dtype:
    # GDAL's complex integers have no numpy type; nothing reads such a band
    return np.dtype("complex64" if name.startswith("complex_") else name)


def _check_bands(dataset: DatasetReader, file: Path, bands: Sequence[int]) -> None:
    for band in bands:
        if not 1 <= band <= dataset.count:
            has = "1 band" if dataset.count == 1 else f"{dataset.count} bands"
            raise EngineError(
                "parameter", f"{file.name} has {has}, so there is no band {band}.", "Choose another BAND."
            )
        dtype = dataset.dtypes[band - 1]
        if dtype.startswith("complex"):
            raise EngineError(
                "input",
                "Complex SAR data: convert to amplitude or intensity first.",
                f"Band {band} of {file.name} is {dtype}.",
            )


def _sources(file: Path) -> list[Path]:
    with gdal_env():
        return source_files(file)


def _band_notes(dataset: DatasetReader, band: int) -> Iterator[str]:
    name = Path(dataset.name).name
    if dataset.count >= 3 and tuple(dataset.colorinterp[:3]) == RGB:
        yield f"{name} is a colour picture, not confirmed as SAR; band {band} is used as it is."
    if dataset.colorinterp[band - 1] == ColorInterp.palette:
        yield f"Band {band} of {name} has a colour table; its index values are used, not its colours."


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return Stamp(file, status.st_size, status.st_mtime_ns)


def _cause(error: Exception) -> str:
    # rasterio hides GDAL's words behind "Read failed. See previous exception for details."
    cause = error.__cause__ or error.__context__ or error
    return str(cause).strip().rstrip(".").replace("\n", " ")
