"""Change between two dates: from a scene's probabilities to mask, polygons, figures and report.

A Job of kind ``predict`` whose task has :attr:`Task.pair` and the one output ``change`` may name:

Inputs: ``before``, ``after``: ``{"path", "bands"}``; ``reference`` (optional): the true changes, a raster
(``bands``: one or none; 0 = no change, else change, nodata = unknown) or a polygon layer. ``zones``
(optional): a polygon layer with a field ``name``; the figures tell the change in each.

Params beside those of every raster run (``align``, ``match_radiometry``, ``stretch_min``,
``stretch_max``, ``date_before``, ``date_after``, ``tile``, ``overlap``, ``batch``, ``cog``): ``threshold``
0..1 (0 or missing = the task's, which may be Otsu's), ``min_area`` in m2 (-1 or missing = the task's, 0 =
none), ``simplify`` in m (0), ``regularise`` (false), ``max_hole`` in m2 (0), ``resample`` (false;
true: the network runs at its own pixel size, network_grid.py, and ``tile`` of a polygon counts its tiles).

Outputs: ``mask`` (GeoTIFF, uint8: 1 change, 0 none, 255 nodata) and ``probability`` (GeoTIFF, float32,
nodata -9999), both always; ``polygons`` (FlatGeobuf with polygons_features.POLYGON_FIELDS) and ``report``
(HTML) where they are named. All of them appear, or none.

Figures beside those of every raster run: ``count``: polygons. ``change``: ``threshold``,
``threshold_source`` (``parameter``, ``model`` or ``otsu``), ``changed_pixels``, ``valid_pixels``,
``share``, ``area_m2`` (None without a place on Earth), ``min_area_m2``, ``simplify_m``, ``regularise``,
``max_hole_m2``, ``sizes`` {``edges_m2``, ``counts``}, ``largest`` [{``id``, ``area_m2``, ``p_mean``,
``x``, ``y``, ``lon``, ``lat``}, at most 10], ``zones`` (with zones): see change_zones.py. ``quality``
with a reference: ``reference``, ``kind`` (``raster`` or ``polygons``), ``pixels``, ``tp``, ``fp``,
``fn``, ``tn``, ``precision``, ``recall``, ``f1``, ``iou``, ``kappa`` (None where they mean nothing),
``notes``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.windows import Window

from ..models.otsu import BINS, histogram, otsu
from ..models.task import Task
from .change_reference import ChangeReference, check_change_reference
from .change_zones import Zones, change_by_zone, read_zones
from .drivers import gdal_env, open_dataset
from .events import Track
from .features import Features, write_features
from .finish import change_mask
from .georef import Georef
from .job import Job
from .joined import Joined
from .marks import CLASSES_NODATA, SCORES_NODATA
from .pairs import dates, share_warning
from .parts import Parts
from .plan import number
from .polygons import Polygoniser, gather
from .polygons_features import Labels, ShapeRules, polygon_features
from .polygons_ground import min_pixels
from .provenance import model
from .raster_prepare import Prepared
from .raster_writer import BLOCK, RasterWriter
from .scene import Scene
from .statistics import Rect

#: Where neither the user nor the task names any: the paper's threshold, and the least building.
THRESHOLD, MIN_AREA_M2 = 0.5, 50.0
#: So many of the largest changes are told one by one.
LARGEST = 10
#: Upper ends of the classes of sizes in m2; what is larger makes the last one.
SIZES_M2 = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
#: Shares of the progress bar at which thresholding begins and the mask is closed.
FROM, CLOSING, TO = 0.97, 0.975, 0.98


@dataclass(frozen=True)
class Rules:
    """What counts as change; ``threshold`` None: Otsu's over the scene."""

    threshold: float | None
    source: str
    shape: ShapeRules


def change_rules(params: Mapping[str, Any], task: Task) -> Rules:
    """Read a Job's parameters; raises EngineError naming the one that does not fit."""
    threshold: float | None = float(number(params, "threshold", 0, 0, 1))
    source = "parameter"
    if not threshold:
        noted = task.notes.get("threshold", THRESHOLD)
        threshold, source = (None, "otsu") if noted == "otsu" else (float(noted), "model")
    area = float(number(params, "min_area", -1, -1, 1e12))
    if area < 0:
        area = float(task.notes.get("min_area", MIN_AREA_M2))
    shape = ShapeRules(
        min_area_m2=area,
        max_hole_m2=float(number(params, "max_hole", 0, 0, 1e12)),
        simplify_m=float(number(params, "simplify", 0, 0, 1e6)),
        regularise=bool(params.get("regularise")),
    )
    return Rules(threshold, source, shape)


class Search:
    """The search of one run: refused before the tiles, carried out when the probability is complete."""

    def __init__(self, job: Job, scene: Scene, task: Task, rect: Rect | None, track: Track) -> None:
        """``rect``: of the output in scene pixels, None = all. Raises EngineError for what does not fit."""
        assert isinstance(scene, Joined)
        self.rules = change_rules(job.params, task)
        named = job.inputs.get("reference")
        self.reference: ChangeReference | None = None
        if named:
            bands = named.get("bands") or []
            self.reference = check_change_reference(scene, named["path"], bands, rect, track)
        zones = job.inputs.get("zones")
        self.zones: Zones | None = read_zones(zones["path"], scene, track) if zones else None
        self._features: Features | None = None

    @property
    def inputs(self) -> list[Path]:
        """Return the files read beside the scene's."""
        return [] if self.reference is None else [stamp.path for stamp in self.reference.stamps]

    def find(self, ready: Prepared, parts: Parts, tags: Mapping[str, str], track: Track) -> dict[str, Any]:
        """Write mask and polygons; return the figures that come with them."""
        figures, self._features = find_changes(ready, self.rules, parts, tags, self.reference, track)
        if self.zones is not None:
            figures["change"]["zones"] = change_by_zone(self.zones, self._features, ready.scene, track)
        return figures

    def write_report(self, path: Path, ready: Prepared, figures: Mapping[str, Any], track: Track) -> None:
        """Write the report; raises OSError."""
        from .change_report import write_change_report  # matplotlib is slow to import

        assert self._features is not None
        write_change_report(path, ready, figures, self._features, track.warnings)


def find_changes(
    ready: Prepared,
    rules: Rules,
    parts: Parts,
    tags: Mapping[str, str],
    reference: ChangeReference | None,
    track: Track,
) -> tuple[dict[str, Any], Features]:
    """Write mask and polygons from the finished probability; return more figures and the features."""
    assert isinstance(ready.scene, Joined)
    assert ready.plan.factor == 1  # what a mask on the dates' own grid needs
    scene, plan, job = ready.scene, ready.plan, ready.job
    georef, (row, col) = scene.georef, plan.rect[:2]
    threshold = _automatic(ready, parts, track) if rules.threshold is None else rules.threshold
    least = min_pixels(rules.shape.min_area_m2, georef, scene.height, scene.width)
    polygoniser = Polygoniser(plan.rect[3], min_pixels=least)
    outlines = []
    changed = valid = 0
    target = change_mask(scene, plan, tags, bool(job.params.get("cog")))
    with RasterWriter(target, parts.path("mask"), track.cancel, parts.final("mask").name) as writer:
        for top, score in _strips(parts, track):
            known = score != SCORES_NODATA
            change = known & (score >= np.float32(threshold))
            mask = np.where(known, change, CLASSES_NODATA).astype(np.uint8)
            writer.write(top, 0, mask[None])
            outlines.append(polygoniser.put(top, mask, score))
            changed += int(np.count_nonzero(change))
            valid += int(np.count_nonzero(known))
            if reference is not None:
                reference.add(row + top, col, change, known)
        outlines.append(polygoniser.finish())
        writer.finish(track, CLOSING, TO)
    every = gather(outlines)
    # from the output's pixels to the scene's, whose place and tiles are known; whole numbers stay whole
    moved = shapely.transform(every.polygons, lambda xy: xy + np.array([col, row]))
    every = replace(every, polygons=moved)
    days = dates(scene, job.params)
    made_by = model(ready.task, job.model)["id"]
    labels = Labels(ready.task.outputs[0], days["before"] or None, days["after"] or None, made_by)
    tiles, steps = ready.tiled.plan.grid, (1.0, 1.0) if ready.grid is None else ready.grid.steps
    features = polygon_features(every, georef, tiles, rules.shape, labels, track.check, steps)
    if "polygons" in job.outputs:
        write_features(parts.path("polygons"), features, georef, "change")
    _tell(changed, valid, threshold, rules, track)
    _warn(changed / valid if valid else 0.0, georef, rules, scene, track)
    figures: dict[str, Any] = {
        "count": len(features),
        "change": {
            "threshold": float(threshold),
            "threshold_source": rules.source,
            "changed_pixels": changed,
            "valid_pixels": valid,
            "share": changed / valid if valid else 0.0,
            "area_m2": float(features.columns["area_m2"].sum()) if georef.earth else None,
            "min_area_m2": rules.shape.min_area_m2,
            "simplify_m": rules.shape.simplify_m,
            "regularise": rules.shape.regularise,
            "max_hole_m2": rules.shape.max_hole_m2,
            "sizes": _sizes(features.columns["area_m2"]) if georef.earth else None,
            "largest": _largest(features, georef),
        },
    }
    if reference is not None:
        figures["quality"] = reference.figures()
        _tell_quality(figures["quality"], track)
    return figures, features


def _strips(parts: Parts, track: Track) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, probability (h, W) float32) of the finished raster from top to bottom."""
    with gdal_env(), open_dataset(parts.path("probability")) as dataset:
        for top in range(0, dataset.height, BLOCK):
            track.check()
            height = min(BLOCK, dataset.height - top)
            share = FROM + (CLOSING - FROM) * top / dataset.height
            track.progress(share, top, dataset.height, "change", None)
            yield top, dataset.read(1, window=Window(0, top, dataset.width, height))


def _automatic(ready: Prepared, parts: Parts, track: Track) -> float:
    """Return Otsu's threshold over the scene, whatever part of it EXTENT and AOI let through.

    A task that surveys the scene notes it as ``otsu``; where all of the scene is put out it is exact.
    """
    scene, region = ready.scene, ready.region
    whole = region is None or (region.is_rect and ready.plan.rect[2:] == (scene.height, scene.width))
    if whole or "otsu" not in ready.task.notes:
        return _otsu(parts, track)
    return float(ready.task.notes["otsu"])


def _otsu(parts: Parts, track: Track) -> float:
    counts = np.zeros(BINS, np.int64)
    for _, score in _strips(parts, track):
        counts += histogram(score[score != SCORES_NODATA])
    return otsu(counts)


def _tell(changed: int, valid: int, threshold: float, rules: Rules, track: Track) -> None:
    sources = {"parameter": "given", "model": "of the model", "otsu": "Otsu's over the scene"}
    share = f"{changed / valid:.2%}" if valid else "none"
    track.info(
        f"{share} of {valid} valid pixels are change, from {threshold:.4g} on ({sources[rules.source]})."
    )


def _tell_quality(quality: Mapping[str, Any], track: Track) -> None:
    measures = {"precision": "precision", "recall": "recall", "f1": "F1", "iou": "IoU", "kappa": "kappa"}
    told = ", ".join(
        f"{name} {'none' if quality[key] is None else format(quality[key], '.3f')}"
        for key, name in measures.items()
    )
    track.info(f"Against {quality['reference']}: {told}, from {quality['pixels']} pixels inside it.")
    for note in quality["notes"]:
        track.info(note)


def _warn(share: float, georef: Georef, rules: Rules, scene: Scene, track: Track) -> None:
    much = share_warning(share)
    if much:
        track.warn(much)
    if not georef.earth:
        small = (
            f", and MIN_AREA counts {rules.shape.min_area_m2:g} of its own square units"
            if rules.shape.min_area_m2
            else ""
        )
        track.warn(f"{scene.title} have no place on Earth, so areas in metres stay empty{small}.")


def _sizes(area: np.ndarray) -> dict[str, list[Any]]:
    """Return how many polygons are of which size: classes up to each edge, the last without an end."""
    counts = np.bincount(np.searchsorted(SIZES_M2, area, side="left"), minlength=len(SIZES_M2) + 1)
    return {"edges_m2": [*map(float, SIZES_M2), None], "counts": counts.tolist()}


def _largest(features: Features, georef: Georef) -> list[dict[str, Any]]:
    size = features.columns["area_m2"] if georef.earth else shapely.area(features.polygons)
    order = np.argsort(-size, kind="stable")[:LARGEST]
    points = shapely.get_coordinates(shapely.point_on_surface(features.polygons[order]))
    lonlat = georef.to_lonlat(points)
    places = [(None, None)] * len(order) if lonlat is None else lonlat.tolist()
    found = []
    for i, (x, y), (lon, lat) in zip(order, points.tolist(), places, strict=True):
        found.append(
            {
                "id": int(features.columns["id"][i]),
                "area_m2": float(size[i]) if georef.earth else None,
                "p_mean": float(features.columns["p_mean"][i]),
                "x": x,
                "y": y,
                "lon": lon,
                "lat": lat,
            }
        )
    return found
