"""Which three bands are red, green and blue, and refusals of rasters that have no such bands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from ..models.task import Task
from .band_names import (
    Found,
    by_numbers,
    by_wavelength,
    by_words,
    is_not_visible,
    names_radar,
    wavelengths_nm,
)
from .drivers import gdal_env, open_dataset
from .errors import EngineError
from .events import Track
from .scene import RGB, Scene
from .statistics import Statistics

#: Backscatter in decibels has its quartiles here: -22 to -7 dB in six bands of Sentinel-1 and of an
#: airborne SAR, whose values are negative to 94 % and more. Reflectance, counts and radiance are
#: negative to 0.02 % (over-corrected shadows); even standardised values reach only about 50 %.
DECIBELS = (-60.0, 0.0)

CONVERT = "Convert it to RGB first (gdal_translate -expand rgb, or Raster > Conversion > PCT to RGB)."


@dataclass(frozen=True)
class Choice:
    """Red, green and blue, counted from 1; ``how`` they were found, for the log."""

    bands: tuple[int, int, int]
    how: str
    warning: str | None = None


def choose_rgb(dataset: DatasetReader, purpose: str = "dehazing") -> Choice:
    """Choose red, green and blue: by colour interpretation, name or wavelength, else the first three.

    Alpha is never chosen. ``purpose``: what needs them, for messages. Raises EngineError for fewer than
    three bands and for a colour table.
    """
    usable = _usable(dataset, purpose)
    meanings = dataset.colorinterp
    named = _by_name(dataset, usable)
    if all(meaning in meanings for meaning in RGB):
        red, green, blue = (meanings.index(meaning) + 1 for meaning in RGB)
        return Choice((red, green, blue), "by colour interpretation", _conflict((red, green, blue), named))
    if named:
        return Choice(named.bands, "by the bands' names", named.warning)
    if found := by_wavelength(wavelengths_nm(dataset, usable)):
        return Choice(found.bands, "by wavelength", found.warning)
    first = usable[0], usable[1], usable[2]
    _check_palette(dataset, first)
    return Choice(first, "the first three", _guess_warning(dataset, usable, first))


def check_typed(
    bands: Sequence[int], dataset: DatasetReader, purpose: str = "dehazing"
) -> tuple[int, int, int]:
    """Return typed BANDS as red, green, blue; raises EngineError unless they are three different colours."""
    usable = _usable(dataset, purpose)
    name = _name(dataset)
    hint = "Write three band numbers, e.g. 3,2,1, or leave BANDS empty for the automatic choice."
    typed = ", ".join(map(str, bands))
    if len(bands) != 3:
        raise EngineError(
            "parameter",
            f"BANDS holds {len(bands)} numbers ({typed}) for {name}, it must hold three: red, green, blue.",
            hint,
        )
    for band in bands:
        if not 1 <= band <= dataset.count:
            raise EngineError(
                "parameter", f"{name} has {dataset.count} bands, so there is no band {band}.", hint
            )
    if len(set(bands)) < 3:
        raise EngineError("parameter", f"BANDS {typed} for {name} names a band twice.", hint)
    for band in bands:
        if band not in usable:
            raise EngineError("parameter", f"Band {band} of {name} is its alpha band, not a colour.", hint)
    _check_palette(dataset, bands)
    return bands[0], bands[1], bands[2]


def bands_for(task: Task, scene: Scene, typed: Sequence[int], track: Track) -> Scene:
    """Return the scene with the bands that a task wants; ``typed``: the Job's, empty = automatic.

    A task of three bands wants red, green and blue; any other takes the first ones. Logs the choice.
    Raises EngineError where the raster has no such bands.
    """
    wanted = task.inputs[0].bands
    if wanted == 3:
        scene = visible_bands(scene, typed, track)
        if task.change:
            refuse_sar(scene)
        return scene
    bands = tuple(typed) or tuple(range(1, wanted + 1))
    if len(bands) != wanted:
        needed = "One band is" if wanted == 1 else f"{wanted} bands are"
        hint = "Choose one BAND." if wanted == 1 else "Choose other BANDS."
        raise EngineError("parameter", f"{needed} needed, not {len(bands)}.", hint)
    return scene.with_bands(bands)


def visible_bands(scene: Scene, typed: Sequence[int], track: Track, purpose: str = "dehazing") -> Scene:
    """Return the scene with red, green and blue chosen, as typed or automatically; logs the choice.

    Raises EngineError where the raster has no such bands.
    """
    with gdal_env(), open_dataset(scene.path) as dataset:
        if typed:
            choice = Choice(check_typed(typed, dataset, purpose), "as BANDS says")
        else:
            choice = choose_rgb(dataset, purpose)
    listed = ", ".join(map(str, choice.bands))
    track.info(f"Red, green, blue are bands {listed} of {scene.path.name} ({choice.how}).")
    if choice.warning:
        track.warn(choice.warning)
    return scene.with_bands(choice.bands)


def usable_bands(scene: Scene) -> int:
    """Return how many bands a raster has besides alpha; raises EngineError for fewer than three."""
    with gdal_env(), open_dataset(scene.path) as dataset:
        return len(_usable(dataset))


def refuse_sar(scene: Scene, statistics: Sequence[Statistics | None] = ()) -> None:
    """Raise EngineError where the chosen bands are radar's; ``statistics``: of these bands, if known.

    Named so (polarisation, sigma0 ...), or of values as only decibels have them: signed, with the
    middle half of every band's valid pixels between -60 and 0.
    """
    name = scene.path.name
    hint = "Choose an optical raster, or BANDS with red, green and blue."
    with gdal_env(), open_dataset(scene.path) as dataset:
        marks = {band: mark for band in scene.bands if (mark := _radar_mark(dataset, band))}
    for band, mark in marks.items():
        raise EngineError(
            "input", f"Band {band} of {name} is SAR by its {mark}; dehazing needs visible light.", hint
        )
    known = [found for found in statistics if found is not None]
    low, high = DECIBELS
    if not known or any(found.dtype.kind not in "if" for found in known):
        return
    quartiles = [(found.percentile(25), found.percentile(75)) for found in known]
    if all(low <= first and third < high for first, third in quartiles):
        raise EngineError(
            "input",
            f"Bands {', '.join(map(str, scene.bands))} of {name} look like SAR in decibels: half of their "
            f"values lie between {min(q[0] for q in quartiles):.3g} and "
            f"{max(q[1] for q in quartiles):.3g} (the rule: quartiles from {low:g} to {high:g}).",
            hint,
        )


def _usable(dataset: DatasetReader, purpose: str = "dehazing") -> list[int]:
    """Return all bands but alpha; raises EngineError for fewer than three."""
    bands = [b for b, meaning in enumerate(dataset.colorinterp, 1) if meaning != ColorInterp.alpha]
    if len(bands) < 3:
        _check_palette(dataset, bands)
        has = f"{len(bands)} band" + ("" if len(bands) == 1 else "s")
        besides = " besides alpha" if len(bands) < dataset.count else ""
        raise EngineError(
            "input",
            f"{_name(dataset)} has {has}{besides}; {purpose} needs three visible bands (red, green, blue).",
            "Choose a colour or multi-band raster, or merge the bands into one file first.",
        )
    return bands


def _check_palette(dataset: DatasetReader, bands: Sequence[int]) -> None:
    for band in bands:
        if dataset.colorinterp[band - 1] == ColorInterp.palette:
            raise EngineError(
                "input",
                f"Band {band} of {_name(dataset)} has a colour table: its index values are not colours.",
                CONVERT,
            )


def _by_name(dataset: DatasetReader, usable: Sequence[int]) -> Found | None:
    names = {band: dataset.descriptions[band - 1] or "" for band in usable}
    names = {band: name for band, name in names.items() if name.strip()}
    marks = " ".join([_name(dataset), *dataset.tags().values()])
    return by_words(names) or by_numbers(names, marks)


def _conflict(bands: tuple[int, int, int], named: Found | None) -> str | None:
    if named is None or named.bands == bands:
        return None
    # writers of 8-bit TIFF call the first three bands red, green and blue unasked
    listed = ", ".join(map(str, bands))
    other = ",".join(map(str, named.bands))
    return (
        f"Bands {listed} are red, green, blue by colour interpretation, but by their names it is {other}; "
        f"the interpretation is used: set BANDS to {other} if the names are right."
    )


def _guess_warning(dataset: DatasetReader, usable: Sequence[int], first: tuple[int, int, int]) -> str | None:
    listed = ", ".join(map(str, first))
    for band in first:
        name = dataset.descriptions[band - 1] or dataset.colorinterp[band - 1].name
        if is_not_visible(name):
            return (
                f"Band {band} of {_name(dataset)} is not visible light ({name}), and not all of red, green "
                f"and blue were found; bands {listed} are used: choose BANDS if others are meant."
            )
    if len(usable) <= 4:
        return None
    return (
        f"{_name(dataset)} has {len(usable)} bands and nothing says which are red, green and blue; "
        f"bands {listed} are used: choose BANDS if others are meant."
    )


def _radar_mark(dataset: DatasetReader, band: int) -> str:
    """Return what says that a band is radar's, or nothing."""
    name = dataset.descriptions[band - 1] or ""
    if names_radar(name):
        return f"name ({name})"
    meaning = dataset.colorinterp[band - 1].name
    if meaning.startswith("sar_"):
        return f"colour interpretation ({meaning})"
    tags = dataset.tags(band)
    if not name:  # a named band of a mixed stack is judged by its name
        tags = {**dataset.tags(), **tags}
    for key, value in tags.items():
        if re.search("polari[sz]ation", key.lower()) and names_radar(value):
            return f"tag {key} ({value})"
    return ""


def _name(dataset: DatasetReader) -> str:
    return Path(dataset.name).name
