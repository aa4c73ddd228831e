"""Peak memory on a sparse 100 000 x 100 000 VRT of three bands, limited by an area of interest.

``python benchmarks/engine_raster_memory.py [classes] [raster] [dark]``: the toys and the dark channel
of engine_raster.py, each in a fresh process, on an AOI that is no rectangle and on one that is as
wide as the raster. ENGINE.md, section 8 (h); wanted is under 1.5 GB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from engine_raster import header, load, make_raster, run_child, say, verdict

#: Sides of the VRT and of the one GeoTIFF in it, and where that lies.
SIDE, SOURCE, PLACE = 100_000, 3_000, 48_500
WANTED_MB = 1500

#: name -> the AOI's corners in pixels (column, row). The diamond touches the source's edges, the band
#: crosses it and asks for rows of 100 000 pixels.
AREAS = {
    "diamond of 3,000 x 3,000": [(50_000, 48_500), (51_500, 50_000), (50_000, 51_500), (48_500, 50_000)],
    "100,000 x 600": [(0, 49_700), (SIDE, 49_700), (SIDE, 50_300), (0, 50_300)],
}

VRT = """<VRTDataset rasterXSize="{side}" rasterYSize="{side}">
  <SRS>EPSG:32633</SRS>
  <GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>
{bands}</VRTDataset>
"""
BAND = """  <VRTRasterBand dataType="Byte" band="{band}">
    <NoDataValue>0</NoDataValue>
    <ColorInterp>{colour}</ColorInterp>
    <SimpleSource>
      <SourceFilename relativeToVRT="1">{name}</SourceFilename>
      <SourceBand>{band}</SourceBand>
      <SrcRect xOff="0" yOff="0" xSize="{source}" ySize="{source}"/>
      <DstRect xOff="{place}" yOff="{place}" xSize="{source}" ySize="{source}"/>
    </SimpleSource>
  </VRTRasterBand>
"""


def make_vrt(folder: Path) -> Path:
    """Write the VRT and, beside it, its source; the engine opens no VRT that points elsewhere."""
    make_raster(folder / "source.tif", SOURCE, SOURCE)
    bands = "".join(
        BAND.format(band=band, colour=colour, name="source.tif", source=SOURCE, place=PLACE)
        for band, colour in enumerate(("Red", "Green", "Blue"), 1)
    )
    path = folder / "sparse.vrt"
    path.write_text(VRT.format(side=SIDE, bands=bands))
    return path


def polygon(corners: list[tuple[int, int]]) -> str:
    """Return pixel corners as WKT in the VRT's CRS."""
    points = [f"{500_000 + 10 * col} {5_000_000 - 10 * row}" for col, row in [*corners, corners[0]]]
    return f"POLYGON (({', '.join(points)}))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["classes", "raster", "dark"])
    asked = parser.parse_args()
    say(f"\nA VRT of {SIDE:,} x {SIDE:,} pixels, 3 bands, valid on {SOURCE:,} x {SOURCE:,} of them:\n")
    header(("AOI", "model", "total s", "inside predict s", "peak MB", f"under {WANTED_MB} MB"))
    before = load()
    with tempfile.TemporaryDirectory(prefix="kestrel-benchmark-") as name:
        path, out = make_vrt(Path(name)), Path(name) / "out.tif"
        for area, corners in AREAS.items():
            for what in asked.what:
                out.unlink(missing_ok=True)
                job = {"aoi_wkt": polygon(corners), "crs_wkt": "EPSG:32633"}
                run = run_child("engine", what, path=str(path), out=str(out), job=job)
                say(
                    f"| {area} | {what} | {run.wall:.1f} | {run.inside:.1f} | {run.peak_mb:.0f} "
                    f"| {verdict(run.peak_mb < WANTED_MB)} |"
                )
    say(f"\n- Load averages (1, 5, 15 min): {before} before, {load()} after.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
