"""What a raster's own words say about its bands: colour names, sensors' numbers, wavelengths.

Every function returns (red, green, blue), counted from 1, or None where not all three are found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rasterio.io import DatasetReader

Bands = tuple[int, int, int]

COLOURS = ("red", "green", "blue")

#: Wavelengths of red, green and blue in nm; the last of blue is the first of green, so it is left out.
RANGES = ((620.0, 690.0), (520.0, 600.0), (450.0, 519.999))

#: Beside one of these words a colour's name means something else: red edge, coastal blue, near infra
#: red, or something computed from a colour.
OTHER_WORDS = frozenset(
    "edge coastal aerosol deep nir swir infra infrared near far qa mask std stddev stdev sd var variance "
    "ratio index ndvi difference error noise".split()
)

#: Words of bands beyond the visible, colour interpretations among them.
INVISIBLE = frozenset("edge rededge nir swir mwir lwir tir ir infra infrared thermal".split())


@dataclass(frozen=True)
class Found:
    """Three bands and what the user should be warned of."""

    bands: Bands
    warning: str | None = None


def by_words(names: Mapping[int, str]) -> Found | None:
    """Look for red, green and blue in bands' names; ``names``: band -> description.

    The plainest name wins: ``green`` before ``green i``, the first of equal ones.
    """
    picked = []
    doubled = []
    for colour in COLOURS:
        plain = {band: length for band, name in names.items() if (length := _plainness(name, colour))}
        if not plain:
            return _by_letters(names)
        best = min(plain, key=lambda band: (plain[band], band))
        if sum(length == plain[best] for length in plain.values()) > 1:
            doubled.append(colour)
        picked.append(best)
    return Found(_three(picked), _doubled(doubled))


def is_not_visible(name: str) -> bool:
    """Return True where a name says that the band is no visible colour (NIR, red edge, SWIR 1)."""
    return not INVISIBLE.isdisjoint(_words(name))


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.lower())


def _plainness(name: str, colour: str) -> int:
    """Return how many words a band's name has if it means the colour, else 0."""
    words = _words(name)
    if colour not in words or OTHER_WORDS & set(words) or any(c in words for c in COLOURS if c != colour):
        return 0
    return len(words)


def _by_letters(names: Mapping[int, str]) -> Found | None:
    letters = {name.strip().lower(): band for band, name in reversed(list(names.items()))}
    if not all(letter in letters for letter in "rgb"):
        return None
    return Found(_three([letters[letter] for letter in "rgb"]))


def _doubled(whose: Sequence[str]) -> str | None:
    if not whose:
        return None
    return f"More than one band is called {' and '.join(whose)}; the first of each is used."


# Numbers of red, green and blue. Sentinel-2 (MSI) and Landsat 8/9 (OLI) agree; Landsat 4, 5 and 7
# (TM, ETM+) have no coastal band and count one less; MODIS counts in an order of its own.
MSI_OLI: Bands = (4, 3, 2)
TM: Bands = (3, 2, 1)
MODIS: Bands = (1, 4, 3)

_MODIS_NAME = re.compile(r"sur_refl_b0?(\d{1,2})(?![0-9a-z])")
_SR_NAME = re.compile(r"(?<![a-z])sr_(?:b|band)0?(\d{1,2})(?![0-9a-z])")
_B_NAME = re.compile(r"(?<![0-9a-z])b0?(\d{1,2})(?![0-9a-z])")
_BAND_NAME = re.compile(r"(?<![0-9a-z])band[ _-]?0?(\d{1,2})(?![0-9a-z])")

#: Marks of a sensor in the file's name, tags or bands' names: product ids (LT05_, LE7030...) or words.
_TM_MARK = re.compile(r"(?<![a-z0-9])(?:l[etm]0?[457](?=_|\d{6})|landsat[ _-]?0?[457](?![0-9a-z]))")
_OLI_MARK = re.compile(r"(?<![a-z0-9])(?:l[co]0?[89](?=_|\d{6})|landsat[ _-]?0?[89](?![0-9a-z]))")
#: Sentinel-2 by its name or product id, or by what only it has: band 8A and band numbers with a zero.
_MSI_MARK = re.compile(r"sentinel[ _-]?2|(?<![a-z0-9])s2[abc]?_?msi|(?<![0-9a-z])b(?:0\d|8a)(?![0-9a-z])")


def by_numbers(names: Mapping[int, str], marks: str) -> Found | None:
    """Look for a sensor's band numbers (B4, B04, band 4, SR_B4) in bands' names.

    ``marks``: the file's name and tags, which may tell the satellite. The decisions:

    - ``B4`` and ``band 4`` are Sentinel-2's or Landsat 8/9's, which agree, unless a mark says Landsat 4-7.
    - ``SR_B4`` alone does not tell the Landsat. A mark does; SR_B6 exists from Landsat 8 on; a set
      with SR_B7 but without SR_B6, or one without SR_B4, is Landsat 4-7; else it is Landsat 8/9.
    - ``Band 1, Band 2, ...`` in the file's own order is what programs write that know nothing (ENVI
      headers), whatever the file is called. ``B1, B2, ...`` without a mark is taken, with a warning.
    """
    marks = " ".join([marks, *names.values()]).lower()
    tm, oli = bool(_TM_MARK.search(marks)), bool(_OLI_MARK.search(marks))
    known = TM if tm and not oli else MSI_OLI if oli and not tm else None
    if found := _numbered(names, _MODIS_NAME):
        return _picked(found, MODIS)
    if found := _numbered(names, _SR_NAME):
        return _landsat(found, known)
    if picked := _picked(found := _numbered(names, _B_NAME), known or MSI_OLI):
        if known or _MSI_MARK.search(marks) or not _is_count(found):
            return picked
        listed = ", ".join(map(str, picked.bands))
        warning = (
            f"The names B1, B2, ... are taken for those of Sentinel-2 or Landsat 8/9, so bands {listed} "
            "are red, green, blue; choose BANDS if they only count."
        )
        return Found(picked.bands, warning)
    found = _numbered(names, _BAND_NAME)
    return None if _is_count(found) else _picked(found, known or MSI_OLI)


def _landsat(found: dict[int, list[int]], known: Bands | None) -> Found | None:
    numbers = set(found)
    if known is None and 6 not in numbers and (4 not in numbers or {1, 2, 3, 4, 5, 7} <= numbers):
        known = TM
    picked = _picked(found, known or MSI_OLI)
    if picked and known is None and 1 in numbers and 6 not in numbers:
        warning = (
            "The names SR_B1 to SR_B4 are taken for those of Landsat 8/9; "
            "in Landsat 4 to 7 red, green and blue are SR_B3, SR_B2 and SR_B1: choose BANDS then."
        )
        return Found(picked.bands, warning)
    return picked


def _numbered(names: Mapping[int, str], pattern: re.Pattern[str]) -> dict[int, list[int]]:
    """Return sensor's number -> bands with that number in their name."""
    found: dict[int, list[int]] = {}
    for band, name in names.items():
        if match := pattern.search(name.lower()):
            found.setdefault(int(match[1]), []).append(band)
    return found


def _picked(found: Mapping[int, list[int]], numbers: Bands) -> Found | None:
    if not all(number in found for number in numbers):
        return None
    bands = _three([found[number][0] for number in numbers])
    return Found(bands, _doubled([f"band {n}" for n in numbers if len(found[n]) > 1]))


def _is_count(found: Mapping[int, list[int]]) -> bool:
    """Return True where each name's number is the band's own place in the file."""
    return all(bands == [number] for number, bands in found.items())


_KEY = re.compile(r"(?:cent(?:er|re|ral)[ _]?)?wavelengths?(?:[ _]([a-zµμ]+))?")
_UNIT_KEY = re.compile(r"(?:cent(?:er|re|ral)[ _]?)?wavelengths?[ _]units?")
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*([a-zµμ]*)", re.IGNORECASE)
_IN_NAME = re.compile(r"(\d+(?:\.\d+)?)\s*(nm|nanomet\w*|[uµμ]m|micromet\w*)(?![a-z])", re.IGNORECASE)


def by_wavelength(wavelengths: Mapping[int, float]) -> Found | None:
    """Return the bands nearest to the middle of each range; ``wavelengths``: band -> nm."""
    picked = []
    for low, high in RANGES:
        inside = [band for band, nm in wavelengths.items() if low <= nm <= high]
        if not inside:
            return None
        middle = (low + high) / 2
        picked.append(min(inside, key=lambda band: (abs(wavelengths[band] - middle), band)))
    return Found(_three(picked))


def wavelengths_nm(dataset: DatasetReader, bands: Sequence[int]) -> dict[int, float]:
    """Read the bands' wavelengths: from their tags, from ENVI's list, or from their names.

    A number without a unit is micrometres below 100, nanometres above: light is 0.1 to 15 um.
    """
    of_file = {**dataset.tags(), **dataset.tags(ns="ENVI")}
    listed = _listed(of_file, dataset.count)
    found = {}
    for band in bands:
        tags = {**dataset.tags(band, ns="IMAGERY"), **dataset.tags(band)}
        nm = _tagged(tags, _unit(tags) or _unit(of_file))
        if nm is None and listed:
            nm = _nm(listed[band - 1], _unit(of_file))
        if nm is None and (match := _IN_NAME.search(dataset.descriptions[band - 1] or "")):
            nm = _nm(match[1], match[2])
        if nm is not None:
            found[band] = nm
    return found


def _tagged(tags: Mapping[str, str], unit: str) -> float | None:
    for key, value in tags.items():
        match = _KEY.fullmatch(key.lower())
        if match and match[1] not in ("unit", "units"):
            nm = _nm(value, match[1] or unit)
            if nm is not None:
                return nm
    return None


def _unit(tags: Mapping[str, str]) -> str:
    return next((v for k, v in tags.items() if _UNIT_KEY.fullmatch(k.lower())), "")


def _listed(tags: Mapping[str, str], count: int) -> list[str]:
    for key, value in tags.items():
        parts = value.strip().strip("{}").split(",")
        if _KEY.fullmatch(key.lower()) and count > 1 and len(parts) == count:
            return parts
    return []


def _nm(value: str, unit: str) -> float | None:
    match = _NUMBER.match(value)
    if not match:
        return None
    number = float(match[1])
    for name in (match[2].lower(), unit.strip().lower()):
        if name.startswith(("nm", "nano")):
            return number
        if name.startswith(("um", "µm", "μm", "micro")):
            return number * 1000
    return number * 1000 if number < 100 else number


def _three(bands: Sequence[int]) -> Bands:
    red, green, blue = bands
    return red, green, blue


#: A polarisation or a calibration of radar in a band's name.
_RADAR: tuple[Callable[[str], re.Match[str] | None], ...] = tuple(
    re.compile(pattern, re.IGNORECASE).search
    for pattern in (
        r"(?<![a-z])(vv|vh|hh|hv)(?![a-z])",
        r"(?<![a-z])(sigma|gamma|beta)[ _-]?(0|zero|nought|naught)",
        r"backscatter",
    )
)


def names_radar(name: str) -> bool:
    """Return True where a name tells radar: VV, VH, HH, HV, sigma0, gamma0, beta0, backscatter."""
    return any(search(name) for search in _RADAR)
