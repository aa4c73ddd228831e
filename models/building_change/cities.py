"""Urban change at 10 m: the cities of OSCD (Sentinel-2) as training data, leaving cities out.

Not the paper's data, and another task than single buildings: at 10 m a house is one pixel, and what is
outlined are new quarters, roads and harbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .data import TRAINING, VALIDATION, Mix, Pairs, Site
from .predict import TILE, starts

#: Cities that are scored together. Paris and Bercy show one city and Saclay is near by.
FOLDS: tuple[tuple[str, ...], ...] = (
    ("aguasclaras",),
    ("beihai",),
    ("beirut",),
    ("bercy", "paris", "saclay_e"),
    ("bordeaux",),
    ("hongkong",),
    ("mumbai",),
    ("nantes",),
)
#: So many folds after the scored one choose epoch and threshold: one city has too few changes for it.
CHOOSING = 2
#: What is drawn at 10 m: no roofs with shadows, and registration is better than a pixel (L1C).
SENTINEL2 = Mix(stood=0.0, simulated=0.0, built=0.2, shift=0.5)


def city_of(site: str) -> str:
    """Return the city of a site's name: ``paris_01`` -> ``paris``."""
    return site.rsplit("_", 1)[0]


def choosing(fold: int) -> tuple[str, ...]:
    """Return the cities that choose epoch and threshold where ``fold`` is scored."""
    after = [FOLDS[(fold + step) % len(FOLDS)] for step in range(1, CHOOSING + 1)]
    return tuple(city for cities in after for city in cities)


def as_pairs(sites: Sequence[Site], scored: Sequence[str], chosen: Sequence[str], side: int = TILE) -> Pairs:
    """Return squares of ``side`` pixels that cover the cities, those of ``scored`` left out.

    Cities of ``chosen`` make the validation part, all others the training part; the last square of a row
    or column ends at the city's edge and shares ground with the one before.
    """
    cut: list[tuple[np.ndarray, np.ndarray, np.ndarray, int, int]] = []
    for number, site in enumerate(sites):
        city = city_of(site.name)
        if city in scored:
            continue
        part = VALIDATION if city in chosen else TRAINING
        height, width = site.label.shape
        for row in starts(height, side, side):
            for col in starts(width, side, side):
                window = (..., slice(row, row + side), slice(col, col + side))
                cut.append((site.before[window], site.after[window], site.label[window], number, part))
    before, after, label, image, part_of = zip(*cut, strict=True)
    return Pairs(np.stack(before), np.stack(after), np.stack(label), np.array(image), np.array(part_of))
