"""Files beside a raster that GDAL and QGIS take for its own, and that a new raster must not inherit."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

RASTER_SUFFIXES = (".tif", ".tiff")

#: After the file's full name: overviews, masks, statistics. They belong to no other file.
_AFTER_NAME = (".ovr", ".msk", ".msk.ovr", ".aux.xml")

#: After the stem: world files are read for a raster without a transform of its own.
_AFTER_STEM = (".tfw", ".tifw", ".tiffw")

#: After the stem too, but perhaps of a vector layer of the same name: only where a raster was replaced.
_AFTER_STEM_REPLACED = (".qml", ".wld")


def remove_side_files(raster: Path, replaced: bool, keep: Collection[Path] = ()) -> None:
    """Remove what an earlier raster of this name left; ``keep`` was just written.

    ``replaced``: there was such a raster. Does nothing for files that are no GeoTIFF. What cannot be
    removed stays: the new raster itself is complete.
    """
    if raster.suffix.lower() not in RASTER_SUFFIXES:
        return
    after_stem = _AFTER_STEM + (_AFTER_STEM_REPLACED if replaced else ())
    for name in os.listdir(raster.parent):
        # the names as they are, the endings in any case: scene.TFW exists
        ours = name.startswith(raster.name) and name[len(raster.name) :].lower() in _AFTER_NAME
        ours |= name.startswith(raster.stem) and name[len(raster.stem) :].lower() in after_stem
        path = raster.parent / name
        if ours and path not in keep:
            with suppress(OSError):
                path.unlink()
