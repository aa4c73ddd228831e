"""Two dates of one ground: when they were taken, by what, and how far they lie beside each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from .align import Layer
from .drivers import gdal_env, open_dataset
from .errors import EngineError
from .events import Track
from .job import Job
from .joined import Joined, joined
from .misregistration import CLEAR, LARGEST, NOTABLE, Registration, measure
from .scene import Scene

#: The later layer's pixels so many times larger or smaller show the ground at another scale.
GSD_FACTOR = 2.0
#: Where sensors differ, pixels mostly do by more than a resampling to a near-by size would.
SENSOR_FACTOR = 1.5
ALIGN = ("none", "shift")
#: Share of changed pixels above which season, light or a shift are likelier than building.
MUCH_CHANGE = 0.3


def warn_of_pair(scene: Joined, params: Mapping[str, Any], track: Track) -> None:
    """Warn where something else than change can make two dates differ."""
    _warn_of_the_same(scene, track)
    _warn_of_sensors(scene, track)
    _warn_of_dates(scene, params, track)


def share_warning(share: float) -> str | None:
    """Return a warning where ``share`` of the valid pixels, 0..1, is more change than can be meant."""
    if share <= MUCH_CHANGE:
        return None
    return (
        f"{share:.0%} of the valid pixels are marked as change: different seasons, light or sensors, or a "
        "shift between the dates, are likelier than so much real change."
    )


def register(scene: Joined, job: Job, track: Track) -> Joined:
    """Return the scene with what was measured of two dates, with ALIGN=shift the later one moved back.

    The shared ground stays the same. Raises EngineError where the move cannot be trusted.
    """
    align = job.params.get("align") or "none"
    if align not in ALIGN:
        raise EngineError("parameter", f"ALIGN is {align!r}; it must be none or shift.")
    first, second = scene.layers[:2]
    found = measure(scene, track)
    if align == "none":
        _tell(found, first, second, track)
        return replace(scene, registration=found)
    found = _movable(found, first, second)
    moved = joined([(layer.role, layer.scene) for layer in scene.layers], found.shift)
    after = measure(moved, track)
    track.info(
        f"{second.name} is moved by {-found.shift[0]:+.2f}, {-found.shift[1]:+.2f} pixels (right, down) onto "
        f"{first.name}; peak quality {found.quality:.1f}."
    )
    moved_by = -found.shift[0], -found.shift[1]
    return replace(moved, registration=replace(found, moved=moved_by, left=after.shift if after else None))


def dates(scene: Joined, params: Mapping[str, Any]) -> dict[str, str]:
    """Return role -> date as year-month-day, with the time where it is known, "" where no date is.

    ``params``: ``date_before`` and the like, from the layer's own settings, else the file's tags.
    """
    found = {}
    for layer in scene.layers:
        typed = str(params.get(f"date_{layer.role}") or "")
        found[layer.role] = _date(typed) if typed else _tagged(layer.scene)
    return found


def _warn_of_the_same(scene: Joined, track: Track) -> None:
    for first, second in pairwise(scene.layers):
        if first.scene.path.samefile(second.scene.path) and first.scene.bands == second.scene.bands:
            track.warn(f"{first.name} and {second.name} are the same raster: nothing differs between them.")


def _warn_of_sensors(scene: Joined, track: Track) -> None:
    first, second = scene.layers[:2]
    size = (second.finer[0] * second.finer[1]) ** 0.5
    if not 1 / GSD_FACTOR <= size <= GSD_FACTOR:
        much, which = (size, "smaller") if size > 1 else (1 / size, "larger")
        track.warn(
            f"Pixels of {second.name} are {much:.3g} times {which} than those of {first.name}: what only one "
            "of the two can show looks like change."
        )
    signs = []
    if first.scene.count != second.scene.count:
        signs.append(f"{first.scene.count} and {second.scene.count} bands")
    if first.scene.dtype != second.scene.dtype:
        signs.append(f"{first.scene.dtype} and {second.scene.dtype}")
    if not 1 / SENSOR_FACTOR <= size <= SENSOR_FACTOR:
        signs.append(
            f"pixels {size:.3g} times as fine in the second"
            if size > 1
            else f"pixels {1 / size:.3g} times as coarse in the second"
        )
    names = [_sensor(layer.scene) for layer in (first, second)]
    if all(names) and names[0] != names[1]:
        signs.append(f"{names[0]} and {names[1]}")
    if signs:
        track.warn(
            f"{first.name} and {second.name} seem to come from different sensors ({', '.join(signs)}): "
            "their own differences can look like change."
        )


def _warn_of_dates(scene: Joined, params: Mapping[str, Any], track: Track) -> None:
    known = dates(scene, params)
    for first, second in pairwise(scene.layers):
        earlier, later = known[first.role], known[second.role]
        if earlier and later and earlier > later:
            track.warn(
                f"{first.name} is of {earlier} and {second.name} of {later}: the dates are reversed, so what "
                "was built in between counts as torn down."
            )


def _sensor(scene: Scene) -> str:
    """Return what a file's tags call its satellite or camera, "" for nothing."""
    with gdal_env(), open_dataset(scene.path) as dataset:
        tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
    for key in ("SATELLITEID", "SENSOR_ID", "SENSOR", "SPACECRAFT_ID", "TIFFTAG_MODEL"):
        if str(tags.get(key, "")).strip():
            return str(tags[key]).strip()
    return ""


def _tagged(scene: Scene) -> str:
    with gdal_env(), open_dataset(scene.path) as dataset:
        tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
    # when it was taken comes before when the file was written
    for key in ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "TIFFTAG_DATETIME"):
        if date := _date(str(tags.get(key, ""))):
            return date
    return ""


def _date(text: str) -> str:
    """Return a date that sorts by time, from 2012:04:30 10:20:30, 2012-04-30T10:20:30Z or 20120430."""
    found = re.match(r"\s*(\d{4})[-:/]?(\d\d)[-:/]?(\d\d)(?:[T ]+(\d\d):(\d\d)(?::(\d\d))?)?", text)
    if not found or not ("01" <= found[2] <= "12" and "01" <= found[3] <= "31"):
        return ""
    day = "-".join(found.groups()[:3])
    time = "" if found[4] is None else f"{found[4]}:{found[5]}:{found[6] or '00'}"
    return day if time in ("", "00:00:00") else f"{day} {time}"  # midnight stands for no time


def _movable(found: Registration | None, first: Layer, second: Layer) -> Registration:
    """Return what was measured; raises EngineError where no move can be trusted to it."""
    hint = "Set ALIGN to none, or register the layers with another tool first."
    if found is None or not found.clear:
        quality = "" if found is None else f" (peak quality {found.quality:.1f}, at least {CLEAR:g} needed)"
        raise EngineError(
            "input",
            f"How far {second.name} lies beside {first.name} cannot be told{quality}; ALIGN moves nothing.",
            hint,
        )
    if max(map(abs, found.shift)) > LARGEST:
        raise EngineError(
            "input",
            f"{second.name} lies {found.shift[0]:+.1f}, {found.shift[1]:+.1f} pixels (right, down) beside "
            f"{first.name}; ALIGN moves by {LARGEST:g} at most.",
            hint,
        )
    return found


def _tell(found: Registration | None, first: Layer, second: Layer, track: Track) -> None:
    if found is None:
        track.info(f"{first.name} and {second.name} share too little to measure how they lie on each other.")
        return
    where = (
        f"{second.name} lies {found.shift[0]:+.2f}, {found.shift[1]:+.2f} pixels (right, down) beside "
        f"{first.name}"
    )
    quality = f"peak quality {found.quality:.1f} from {found.patches} patches, {found.agreeing} of them alike"
    if not found.clear:
        track.info(f"{where} at best ({quality}): the peak is too weak to rely on.")
    elif found.distance > NOTABLE:
        track.warn(f"{where} ({quality}): edges will look like change; ALIGN=shift moves it back.")
    else:
        track.info(f"{where} ({quality}).")
