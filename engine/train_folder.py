"""Opening a folder of tiles: A/ the earlier date, B/ the later one, label/ what changed.

The form in which public sets of two dates come, and in which labelling tools leave their work. Files
belong together by name, whatever their ending; a label is 0 where nothing changed, anything else where
something did. Pixels are laid on pixels: a place on Earth is not asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rasterio.enums import ColorInterp

from ..models.trainable import Training
from .bands import check_typed, choose_rgb
from .drivers import gdal_env, open_dataset
from .errors import EngineError
from .events import Track
from .job import Job
from .reference import unit_kind
from .scene import Scene, open_scene
from .tile_folder import TileFolder
from .train_dates import bands
from .train_material import check_roles, naming

#: Files beside rasters that are none: georeference, statistics, styles, notes of data sets, weights.
BESIDE = frozenset(
    ".aux .bpw .cpg .csv .db .dbf .gfw .hdr .html .ini .j2w .jgw .jpgw .json .lst .md .msk .ovr .pgw .pngw "
    ".prj .qml .qmd .safetensors .tab .tfw .tifw .tsv .txt .wld .xml .yaml .yml".split()
)


def is_folder(job: Job, training: Training) -> bool:
    """Return whether a Job names a tile folder's sub-folders in place of layers."""
    return bool(training.folders) and any(Path(each["path"]).is_dir() for each in job.inputs.values())


def open_folder(job: Job, training: Training, track: Track) -> TileFolder:
    """Open the headers of all tiles; raises EngineError naming the folder or the file that does not fit."""
    check_roles(job, training)
    paths = {role: Path(job.inputs[role]["path"]) for role in training.folders}
    folder = next(iter(paths.values())).parent
    for role, sub in training.folders.items():
        if paths[role] != folder / sub or not paths[role].is_dir():
            listed = ", ".join(f"{each}/" for each in training.folders.values())
            raise EngineError(
                "input",
                f"FOLDER {folder.name} has no sub-folder {sub}/.",
                f"It must hold {listed} with files of equal names.",
            )
    files = {role: _files(path, training.folders[role]) for role, path in paths.items()}
    names = _names(files, training.folders)
    typed = {each.role: list(job.inputs[each.role].get("bands") or []) for each in training.inputs}
    images: dict[str, dict[str, Scene]] = {}
    chosen: Counter[tuple[str, str]] = Counter()
    for number, name in enumerate(names):
        track.check()
        track.progress(0.02, number, len(names), "opening", None)
        images[name] = _open(
            training, {role: found[name] for role, found in files.items()}, typed, chosen, track
        )
    for (role, how), count in sorted(chosen.items(), key=lambda item: training.folders[item[0][0]]):
        track.info(f"Red, green, blue of {count} file(s) in {training.folders[role]}/: {how}.")
    found = TileFolder(training, folder, images, {"FOLDER": folder.name, **bands(typed)})
    _check_units(found)
    return found


def _files(path: Path, sub: str) -> dict[str, Path]:
    """Return name without ending -> file, of all that can be images."""
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() in BESIDE or not file.is_file():
            continue
        if file.stem in found:
            raise EngineError(
                "input",
                f"{sub}/ holds {found[file.stem].name} and {file.name}, so it is not sure which one is meant "
                f"by the name {file.stem}.",
                "Keep one of them there.",
            )
        found[file.stem] = file
    if not found:
        raise EngineError(
            "input", f"{sub}/ in FOLDER {path.parent.name} holds no image.", "Put the tiles there."
        )
    return found


def _names(files: Mapping[str, Mapping[str, Path]], folders: Mapping[str, str]) -> list[str]:
    """Return all names, numbers in them by size; raises EngineError for a file without its partners."""
    every = set().union(*files.values())
    for name in sorted(every):
        lacking = [f"{folders[role]}/" for role, found in files.items() if name not in found]
        if lacking:
            role, there = next((role, found[name]) for role, found in files.items() if name in found)
            raise EngineError(
                "input",
                f"{folders[role]}/{there.name} has no partner of that name in {' and '.join(lacking)}.",
                "Put it there, or take the file away.",
            )
    return sorted(
        every, key=lambda name: [(int(part) if part.isdigit() else -1, part) for part in _PARTS(name)]
    )


_PARTS = re.compile(r"\d+|\D+").findall


def _open(
    training: Training,
    files: Mapping[str, Path],
    typed: Mapping[str, list[int]],
    chosen: Counter[tuple[str, str]],
    track: Track,
) -> dict[str, Scene]:
    """Open one image of both dates and its label; counts in ``chosen`` how bands were found."""
    image: dict[str, Scene] = {}
    for role, file in files.items():
        shown = f"{training.folders[role]}/{file.name}"
        with naming(shown):
            scene = open_scene(str(file), 1)
            if role != training.labels:
                scene = _coloured(scene, typed[role], role, chosen, track)
            else:
                scene = _drawn(scene)
        image[role] = scene
        first = next(iter(image.values()))
        if (scene.width, scene.height) != (first.width, first.height):
            other = f"{next(iter(training.folders.values()))}/{first.path.name}"
            raise EngineError(
                "input",
                f"{shown} has {scene.width} x {scene.height} pixels, {other} {first.width} x {first.height}.",
                "Both dates and the label of a tile must have the same size.",
            )
    return image


def _coloured(
    scene: Scene, typed: list[int], role: str, chosen: Counter[tuple[str, str]], track: Track
) -> Scene:
    """Return the scene with red, green and blue chosen; warns of a guess, of each folder once."""
    with gdal_env(), open_dataset(scene.path) as dataset:
        if typed:
            numbers, how, warning = check_typed(typed, dataset, "change detection"), "as typed", None
        else:
            choice = choose_rgb(dataset, "change detection")
            numbers, how, warning = choice.bands, choice.how, choice.warning
    key = role, f"bands {', '.join(map(str, numbers))} ({how})"
    if warning and not chosen[key]:
        track.warn(warning)
    chosen[key] += 1
    return scene.with_bands(numbers)


def _drawn(scene: Scene) -> Scene:
    """Return a label with all bands but alpha: marks may have any colour."""
    with gdal_env(), open_dataset(scene.path) as dataset:
        alpha = [meaning == ColorInterp.alpha for meaning in dataset.colorinterp]
    numbers = [band for band, clear in enumerate(alpha, 1) if not clear]
    return scene.with_bands(numbers) if numbers else scene


def _check_units(found: TileFolder) -> None:
    """Refuse values in different units where one stretch must hold for all images."""
    if found.training.inputs[0].scale.mode == "given":
        return
    first, *others = found.dates
    kinds = [{unit_kind(scene.dtypes[band - 1]) for band in scene.bands} for scene in (first, *others)]
    for scene, kind in zip(others, kinds[1:], strict=True):
        if kind != kinds[0]:
            raise EngineError(
                "input",
                f"{scene.path.parent.name}/{scene.path.name} is {scene.dtype} and "
                f"{first.path.parent.name}/{first.path.name} {first.dtype}, so one automatic stretch cannot "
                "hold for all.",
                "Give STRETCH_MIN and STRETCH_MAX.",
            )
