#!/usr/bin/env python3
"""Put two pictures of one ground on a map: ``georeference_change_pair.py BEFORE AFTER FOLDER --gsd 0.5``.

FOLDER gets before.tif, after.tif and, with ``--mask``, change.tif: GeoTIFFs with square pixels of ``--gsd``
metres in a UTM zone. THE POSITION IS INVENTED: data sets of change come as pictures that nobody knows the
place of, and this gives them one so that GIS can measure them. It is written into the files' tags.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

#: Somewhere in Texas, where LEVIR-CD's pictures are from, near no building of theirs.
EPSG, ORIGIN = 32614, (620_000.0, 3_350_000.0)
INVENTED = "Position invented by georeference_change_pair.py: no measurement of the place"


def georeference(
    before: Path,
    after: Path,
    folder: Path,
    *,
    gsd: float,
    epsg: int = EPSG,
    origin: tuple[float, float] = ORIGIN,
    mask: Path | None = None,
    dates: tuple[str, str] | None = None,
) -> list[Path]:
    """Write the GeoTIFFs and return their paths.

    ``gsd``: metres a pixel; ``origin``: easting and northing of the upper left corner; ``dates``: of
    both pictures, as year-month-day. Raises ValueError where they do not fit each other or a UTM zone.
    """
    if not 0 < gsd < 1000:
        raise ValueError(f"GSD is {gsd:g} m; it must be more than 0 and less than 1000")
    crs = CRS.from_epsg(epsg)
    if not (32601 <= epsg <= 32660 or 32701 <= epsg <= 32760):
        raise ValueError(f"EPSG:{epsg} is no UTM zone of WGS 84 (32601 to 32660, 32701 to 32760)")
    for date in dates or ():
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
            raise ValueError(f"{date} is no date; write year-month-day such as 2012-04-30")
    pictures = {"before": before, "after": after, **({"change": mask} if mask else {})}
    arrays = {name: _read(path) for name, path in pictures.items()}
    sizes = {array.shape[1:] for array in arrays.values()}
    if len(sizes) > 1:
        told = ", ".join(f"{pictures[n].name} {a.shape[2]} x {a.shape[1]}" for n, a in arrays.items())
        raise ValueError(f"the pictures have different sizes: {told}")
    folder.mkdir(parents=True, exist_ok=True)
    transform = Affine(gsd, 0, origin[0], 0, -gsd, origin[1])
    days = dict(zip(("before", "after"), dates, strict=True)) if dates else {}
    written = []
    for name, array in arrays.items():
        tags = {"TIFFTAG_IMAGEDESCRIPTION": INVENTED, "SOURCE": pictures[name].name}
        if name in days:
            tags["TIFFTAG_DATETIME"] = f"{days[name].replace('-', ':')} 00:00:00"
        written.append(folder / f"{name}.tif")
        _write(written[-1], array, transform, crs, tags)
    return written


def _read(path: Path) -> np.ndarray:
    """Return a picture's bands, (C, H, W); an alpha band is left out."""
    with warnings.catch_warnings():
        # that it has no place is why it is here
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        dataset = rasterio.open(path)
    with dataset:
        bands = [i for i in dataset.indexes if dataset.colorinterp[i - 1] != rasterio.enums.ColorInterp.alpha]
        return np.asarray(dataset.read(bands))


def _write(path: Path, array: np.ndarray, transform: Affine, crs: CRS, tags: dict[str, str]) -> None:
    profile = {
        "driver": "GTiff",
        "count": len(array),
        "height": array.shape[1],
        "width": array.shape[2],
        "dtype": array.dtype,
        "photometric": "RGB" if len(array) == 3 else "MINISBLACK",
        "compress": "deflate",
        "tiled": True,
    }
    with rasterio.open(path, "w", transform=transform, crs=crs, **profile) as dataset:
        dataset.write(array)
        dataset.update_tags(**tags)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="picture of the earlier date (PNG, JPEG, ...)")
    parser.add_argument("after", type=Path, help="picture of the later date, of the same size")
    parser.add_argument("folder", type=Path, help="where the GeoTIFFs are written")
    parser.add_argument("--mask", type=Path, help="picture of the true changes, not 0 = changed")
    parser.add_argument("--gsd", type=float, required=True, help="metres a pixel (LEVIR-CD 0.5, SZTAKI 1.5)")
    parser.add_argument("--epsg", type=int, default=EPSG, help="a UTM zone (default: %(default)s)")
    parser.add_argument(
        "--origin", type=float, nargs=2, default=ORIGIN, metavar=("E", "N"),
        help="upper left corner in metres, invented (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--dates", nargs=2, metavar=("BEFORE", "AFTER"), help="such as 2012-04-30")
    chosen = parser.parse_args()
    try:
        written = georeference(
            chosen.before, chosen.after, chosen.folder, gsd=chosen.gsd, epsg=chosen.epsg,
            origin=tuple(chosen.origin), mask=chosen.mask,
            dates=tuple(chosen.dates) if chosen.dates else None,
        )  # fmt: skip
    except (ValueError, OSError, rasterio.errors.RasterioError) as error:
        parser.exit(1, f"georeference_change_pair.py: {error}.\n")
    for path in written:
        sys.stdout.write(f"{path}: {INVENTED[0].lower()}{INVENTED[1:]}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
