"""A Job's rasters by role: opened, laid on one grid, their bands chosen, refused or warned of.

One raster of role ``image`` stays a plain scene. Several, or one of another role, become a
:class:`~.joined.Joined`: the first role's grid counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..models.task import Input, Task
from .align import Layer
from .bands import visible_bands
from .errors import EngineError
from .events import Track
from .job import Job
from .joined import Joined, joined
from .network_grid import network_grid, network_size, tell_network_grid
from .pairs import SENSOR_FACTOR, warn_of_pair
from .reference import same_crs, unit_kind
from .scene import Scene, open_scene

#: Roles of rasters (ARCHITECTURE.md), those that can give the grid first. Other inputs of a Job - land,
#: a reference - are none of a task's.
ROLES = ("image", "before", "after", "hsi", "lidar", "optical", "sar", "mask")


def open_rasters(job: Job) -> Scene:
    """Open a Job's rasters; raises EngineError where there is none, or they share no ground."""
    roles = [role for role in ROLES if role in job.inputs]
    if not roles:
        raise EngineError("parameter", "The Job names no image.")
    if roles == ["image"]:
        entry = job.inputs["image"]
        return open_scene(entry["path"], entry.get("bands") or 1)
    scenes = []
    for role in roles:
        entry = job.inputs[role]
        scenes.append((role, _named(role, open_scene, entry["path"], entry.get("bands") or 1)))
    return joined(scenes)


def settle(task: Task, scene: Joined, job: Job, track: Track) -> Joined:
    """Return the layers with the bands that a task wants; warns of what makes differences of its own.

    Raises EngineError for layers that do not fit the task or each other.
    """
    _check_roles(task, scene)
    height, width = network_size(scene, task, job.params)
    if min(height, width) < task.smallest:
        grid = network_grid(scene, task, job.params)
        of = "" if grid is None else f" of {grid.gsd:.3g} m"
        raise EngineError(
            "input",
            f"{scene.title} share {width} x {height} pixels{of}; at least {task.smallest} along each "
            "side are needed.",
            "Choose larger rasters of the same ground.",
        )
    scenes = []
    for wanted, layer in zip(task.inputs, scene.layers, strict=True):
        typed = job.inputs[layer.role].get("bands") or []
        scenes.append((layer.role, _named(layer.role, _bands, task, wanted, layer.scene, typed, track)))
    chosen = joined(scenes)
    for layer in chosen.layers[1:]:
        if layer.resampled:
            track.info(_resampled(chosen.layers[0], layer))
    if chosen.georef.crs is None:
        track.warn(f"{chosen.title} have no CRS: their pixels are laid on each other by coordinates alone.")
    tell_network_grid(chosen, task, job.params, track)
    if not task.pair:
        return chosen
    _check_values(task, chosen, job.params)
    warn_of_pair(chosen, job.params, track)
    return chosen


def layer_figures(scene: Joined) -> dict[str, dict[str, Any]]:
    """Return role -> what sidecar and report tell of each layer."""
    return {
        layer.role: {
            "path": str(layer.scene.path),
            "bands": list(layer.scene.bands),
            "dtype": str(layer.scene.dtype),
            "crs": layer.scene.georef.wkt,
            "pixel_m": layer.scene.georef.pixel_m(layer.scene.width / 2, layer.scene.height / 2),
            "resampled": layer.resampled,
        }
        for layer in scene.layers
    }


def _named(role: str, work: Callable[..., Scene], *arguments: Any) -> Scene:
    """Return what ``work`` does; its refusal names the role, as two rasters may have one file's name."""
    try:
        return work(*arguments)
    except EngineError as error:
        raise type(error)(error.code, f"{role.upper()}: {error.message}", error.hint) from None


def _check_roles(task: Task, scene: Joined) -> None:
    wanted, there = [each.role for each in task.inputs], [layer.role for layer in scene.layers]
    for role in wanted:
        if role not in there:
            raise EngineError("parameter", f"{role.upper()}: a raster is needed for {task.name}.")
    for role in there:
        if role not in wanted:
            raise EngineError("parameter", f"{task.name} reads no raster {role.upper()}.")
    assert wanted == there, "a task lists its inputs as ROLES does"
    if task.kind == "boxes" or task.change:
        raise EngineError(
            "model", f"The engine cannot run models of kind {task.kind!r} on several rasters yet."
        )


def _bands(task: Task, wanted: Input, scene: Scene, typed: Sequence[int], track: Track) -> Scene:
    if wanted.bands == 3:
        return visible_bands(scene, typed, track, "change detection" if task.pair else task.name)
    bands = tuple(typed) or tuple(range(1, wanted.bands + 1))
    if len(bands) != wanted.bands:
        raise EngineError(
            "parameter", f"{wanted.bands} bands are needed, not {len(bands)}.", "Choose other BANDS."
        )
    return scene.with_bands(bands)


def _check_values(task: Task, scene: Joined, params: Mapping[str, Any]) -> None:
    """Refuse values in different units where one stretch must hold for both dates."""
    if task.inputs[0].scale.mode == "given" or params.get("match_radiometry"):
        return
    first, *others = scene.layers
    kinds = [_kinds(layer) for layer in scene.layers]
    for layer, kind in zip(others, kinds[1:], strict=True):
        if kind != kinds[0]:
            raise EngineError(
                "parameter",
                f"{first.name} is {first.scene.dtype} and {layer.name} {layer.scene.dtype}, so one automatic "
                "stretch cannot hold for both.",
                "Give STRETCH_MIN and STRETCH_MAX, or set MATCH_RADIOMETRY.",
            )


def _kinds(layer: Layer) -> set[str]:
    return {unit_kind(layer.scene.dtypes[band - 1]) for band in layer.scene.bands}


def _resampled(first: Layer, layer: Layer) -> str:
    why = "its pixels lie otherwise"
    if not same_crs(first.scene.georef, layer.scene.georef):
        why = "it has another CRS"
    elif max(layer.finer) > SENSOR_FACTOR or min(layer.finer) < 1 / SENSOR_FACTOR:
        why = "its pixels have another size"
    return f"{layer.name} is resampled (bilinear) to the grid of {first.name}: {why}."
