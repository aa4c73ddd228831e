"""The layers that a training learns from: opened, laid on one grid, refused or warned of, stretched alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.trainable import Training
from .bands import refuse_sar, usable_bands, visible_bands
from .crops import Cut, cut_crops
from .errors import EngineError
from .events import Track
from .heap import give_back
from .job import Job
from .reference import Reference, Words, check_reference
from .scaling import Scaling
from .scene import Scene, Stamp, open_scene
from .statistics import Statistics, band_statistics
from .stretch import outside, resolve_stretch
from .train_material import Named, check_roles

#: Share of a layer's values outside the first layer's stretch that is worth a warning; an automatic
#: stretch leaves 4 % of its own layer outside.
MANY = 0.1


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers by role, the one whose grid counts first, and all others laid on it."""

    training: Training
    scenes: Mapping[str, Scene]
    others: Mapping[str, Reference]
    typed: Mapping[str, str]

    @property
    def title(self) -> str:
        """Return the layers' names."""
        return " and ".join(f"{role.upper()} {scene.path.name}" for role, scene in self.scenes.items())

    @property
    def named(self) -> list[Named]:
        """Return role, file and bands of each."""
        return [Named(role, scene.path, scene.bands) for role, scene in self.scenes.items()]

    @property
    def first(self) -> Scene:
        """Return the layer whose grid counts."""
        return next(iter(self.scenes.values()))

    @property
    def stamps(self) -> list[Stamp]:
        """Return every file."""
        return [stamp for scene in self.scenes.values() for stamp in scene.stamps]

    @property
    def real(self) -> bool:
        """Return whether no layer stands for one that is simulated."""
        return len(self.scenes) == len(self.training.inputs)

    def stretch(self, track: Track) -> tuple[Scaling, ...]:
        """Fix the one stretch of the run, as a prediction on the first layer would."""
        return one_stretch(self.training, self.scenes, self.others, track)

    def cut(self, scalings: Sequence[Scaling], side: int, track: Track, share: tuple[float, float]) -> Cut:
        """Cut the crops."""
        return cut_crops(self.first, next(iter(self.scenes)), self.others, scalings, side, track, share)

    def check_unchanged(self) -> None:
        """Raise EngineError when a layer was modified."""
        for scene in self.scenes.values():
            scene.check_unchanged()


def open_layers(job: Job, training: Training, track: Track) -> Layers:
    """Open the layers; raises EngineError for what does not fit the training or each other."""
    check_roles(job, training)
    known = [each.role for each in training.inputs]
    roles = [role for role in known if role in job.inputs]
    scenes = {role: open_scene(job.inputs[role]["path"], 1) for role in roles}
    first, *rest = roles
    typed = {role: list(job.inputs[role].get("bands") or []) for role in roles}
    counts = {role: usable_bands(scenes[role]) for role in roles}
    for role in rest:
        if counts[role] != counts[first] and not (typed[role] and typed[first]):
            raise EngineError(
                "parameter",
                f"{first.upper()} {scenes[first].path.name} has {counts[first]} bands and {role.upper()} "
                f"{scenes[role].path.name} has {counts[role]}, so it is not sure which bands belong "
                "together.",
                "Write in BANDS which bands show red, green and blue in both, or choose layers alike.",
            )
    for role in rest:
        if scenes[role].path.samefile(scenes[first].path) and typed[role] == typed[first]:
            raise EngineError(
                "parameter",
                f"{first.upper()} and {role.upper()} are the same raster ({scenes[first].path.name}); "
                "nothing could be learned.",
                "Choose a hazy and a clear layer of the same ground.",
            )
    scenes = {role: visible_bands(scene, typed[role], track) for role, scene in scenes.items()}
    for scene in scenes.values():
        refuse_sar(scene)
    others = {}
    for role in rest:
        words = Words(role.upper(), f"{first.upper()} {scenes[first].path.name}", "")
        others[role] = check_reference(scenes[first], str(scenes[role].path), scenes[role].bands, words=words)
        for note in others[role].notes:
            track.warn(note)
    for role in roles:
        _warn_of_pixel_size(training, role, scenes[role], track)
    names = {role.upper(): scene.path.name for role, scene in scenes.items()}
    bands = {"BANDS": ",".join(map(str, typed[first]))} if typed[first] else {}
    return Layers(training, scenes, others, {**names, **bands})


def _warn_of_pixel_size(training: Training, role: str, scene: Scene, track: Track) -> None:
    gsd = next(each.gsd for each in training.inputs if each.role == role)
    pixel_m = scene.georef.pixel_m(scene.width / 2, scene.height / 2)
    if gsd is None or pixel_m is None:
        return
    size = (pixel_m[0] * pixel_m[1]) ** 0.5
    if not gsd[0] <= size <= gsd[1]:
        track.warn(f"Pixel size is {size:.3g} m; the base weights were trained on {gsd[0]:g}-{gsd[1]:g} m.")


def one_stretch(
    training: Training, scenes: Mapping[str, Scene], others: Mapping[str, Reference], track: Track
) -> tuple[Scaling, ...]:
    """Fix the one stretch of the run, as a prediction on the first layer would."""
    (first, scene), *_ = scenes.items()
    scale = next(each.scale for each in training.inputs if each.role == first)
    with track.stage("statistics", 0.03):
        found = {}
        for role, layer in scenes.items():
            # bytes are stretched from 0 to 255 whatever they are: their percentiles are worth no second
            plain = scale.mode == "auto" and all(layer.dtypes[b - 1] == np.uint8 for b in layer.bands)
            found[role] = band_statistics(layer, None, track, brief=plain)
            refuse_sar(layer, found[role])
        scalings = resolve_stretch(scale, found[first], scene.bands)
        for role, other in others.items():
            _warn_of_values(role, found[role], other, scalings, track)
        give_back()
    for band, scaling in zip(scene.bands, scalings, strict=True):
        track.info(f"Stretch of band {band}: {scaling.low:.6g} to {scaling.high:.6g}, from {scaling.source}.")
    return scalings


def _warn_of_values(
    role: str,
    found: tuple[Statistics | None, ...],
    other: Reference,
    scalings: tuple[Scaling, ...],
    track: Track,
) -> None:
    """Warn where much of a layer lies outside the stretch: nobody can learn what is cut off."""
    for band, statistics, scaling, gain, offset in zip(
        other.scene.bands, found, scalings, other.gains, other.offsets, strict=True
    ):
        if statistics is None or scaling.mode == "uint8":
            continue
        assert scaling.low is not None
        assert scaling.high is not None
        low, high = (scaling.low - offset) / gain, (scaling.high - offset) / gain
        share = outside(dataclasses.replace(scaling, low=low, high=high), statistics)
        if share > MANY:
            track.warn(
                f"{share:.0%} of band {band} of {role.upper()} {other.scene.path.name} lie outside the "
                f"stretch of {scaling.low:.6g} to {scaling.high:.6g} and are cut off; give STRETCH_MIN and "
                "STRETCH_MAX that hold both layers, here and where the weights are used."
            )
