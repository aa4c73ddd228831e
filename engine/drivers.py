"""Which files the engine opens, and how: the allow-list, GDAL's options, a VRT's sources.

GDAL warns about untrusted data itself: a small text file can make it run Python, reach the network
or read any file of the user (ENGINE.md, section 9). So every path is looked at before GDAL sees it.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from .errors import EngineError

#: File formats an analyst keeps rasters in. None of them runs code or opens connections; VRT is
#: looked into by :func:`source_files`. ERS is left out: its header opens any other raster, a VRT too.
ALLOWED = (
    "GTiff",
    "COG",
    "VRT",
    "PNG",
    "JPEG",
    "JP2OpenJPEG",
    "JP2KAK",
    "ENVI",
    "HFA",
    "EHdr",
    "AAIGrid",
    "RST",
    "SAGA",
    "PCIDSK",
    "NITF",
    "BMP",
)

#: A mosaic of 100 000 sources is about 50 MB of XML; more is an attack on the parser.
VRT_MAX_BYTES = 64_000_000

REBUILD = "Build the VRT again from the original rasters, or save it as a GeoTIFF."

#: Elements of a VRT that hold the name of another raster.
_SOURCE_TAGS = ("SourceFilename", "SourceDataset", "DEMPath")


def gdal_env() -> rasterio.Env:
    """Return the GDAL settings every thread enters before it opens or reads a raster."""
    return rasterio.Env(
        GDAL_VRT_ENABLE_PYTHON="NO",
        GDAL_CACHEMAX=64 * 2**20,  # bytes; the default of 5 % of the machine is not bounded
        # GDAL turns these two into grey or zero pixels by default; we want an error
        GDAL_ERROR_ON_LIBJPEG_WARNING="YES",
        RAW_CHECK_FILE_SIZE="YES",
        # behind the checks below: whatever a file still names, the network is not reached
        CPL_VSIL_CURL_ALLOWED_FILENAME="none",
    )


def check_path(path: str, what: str = "raster") -> Path:
    """Return the absolute path of an existing local file; raises EngineError for all else."""
    text = path.strip()
    # GDAL looks for a VRT's beginning anywhere in a file's name
    if text.startswith(("/vsi", "<")) or "://" in text or "<VRT" in text:
        raise EngineError(
            "input",
            f"{text[:120]} is not a file on this computer; remote sources and inline XML are not opened.",
            f"Save the {what} to a local file first.",
        )
    file = Path(os.path.abspath(text))
    if file.is_dir():
        raise EngineError("input", f"{file} is a folder, not a {what} file.", f"Choose a {what} file.")
    if not file.exists():
        raise EngineError("input", f"{file} does not exist.", f"Choose an existing {what} file.")
    if file.stat().st_size == 0:
        raise EngineError("input", f"{file} is empty (0 bytes).", "Copy or download it again.")
    return file


def open_dataset(file: Path) -> DatasetReader:
    """Open a checked file read-only with the allowed drivers only, inside :func:`gdal_env`."""
    try:
        return DatasetReader(str(file), driver=list(ALLOWED), sharing=False)
    except RasterioIOError as error:
        raise EngineError(
            "input",
            f"{file} cannot be opened as a raster: {_reason(error, file)}.",
            "Supported are GeoTIFF, VRT, PNG, JPEG, JPEG 2000, ENVI, Erdas Imagine and similar files.",
        ) from None


def source_files(file: Path) -> list[Path]:
    """Return the file and, for a VRT, all files below it, each checked.

    Raises EngineError for a missing source, a source outside the layer's own folder, a loop of
    VRTs, Python pixel functions, or a file that no allowed driver knows.
    """
    file = Path(os.path.realpath(file))
    found: dict[Path, None] = {}
    _walk(file, file.parent, (), found)
    return list(found)


def _walk(file: Path, root: Path, chain: tuple[Path, ...], found: dict[Path, None]) -> None:
    if file in chain:
        raise EngineError(
            "input",
            f"{chain[0]} refers to itself: {' -> '.join(p.name for p in (*chain, file))}.",
            REBUILD,
        )
    if file in found:
        return
    found[file] = None
    if not _is_vrt(file):
        if chain:  # the top file is opened by the caller
            open_dataset(file).close()
        return
    for name, relative in _vrt_sources(file):
        if name.startswith("/vsi") or "://" in name or name.startswith("<"):
            raise EngineError(
                "input",
                f"{file} reads {name[:120]}, which is not a file in its own folder.",
                "Save the VRT as a GeoTIFF first.",
            )
        source = Path(os.path.realpath(file.parent / name if relative else name))
        if not source.is_relative_to(root):
            raise EngineError(
                "input",
                f"{file} reads {source}, which lies outside the folder {root}.",
                "Save the VRT as a GeoTIFF, or move it beside its sources.",
            )
        if not source.is_file():
            raise EngineError(
                "input", f"{file} reads {source}, which does not exist.", "Restore it or rebuild the VRT."
            )
        _walk(source, root, (*chain, file), found)


def _is_vrt(file: Path) -> bool:
    # GDAL tells a VRT by its content, whatever the file is called
    with file.open("rb") as stream:
        return b"<VRTDataset" in stream.read(1024)


def _vrt_sources(file: Path) -> list[tuple[str, bool]]:
    """Return (name, relative to the VRT) of every raster the VRT names."""
    if file.stat().st_size > VRT_MAX_BYTES:
        raise EngineError("input", f"{file} is a VRT of more than {VRT_MAX_BYTES // 10**6} MB.", REBUILD)
    text = file.read_bytes()
    # entities can blow a parser up, and GDAL's own VRTs have none
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise EngineError("input", f"{file} is a VRT with a document type, which GDAL never writes.", REBUILD)
    try:
        tree = ElementTree.fromstring(text)  # noqa: S314 (no entities, size capped above)
    except ElementTree.ParseError as error:
        raise EngineError("input", f"{file} is a damaged VRT: {error}.", REBUILD) from None
    sources = []
    for element in tree.iter():
        if element.tag == "PixelFunctionLanguage" and (element.text or "").strip().lower() == "python":
            raise EngineError(
                "input",
                f"{file} holds a Python pixel function, and code in rasters is not run.",
                "Save the VRT as a GeoTIFF first.",
            )
        if element.tag == "GeoLocTransformer":  # names arrays of coordinates in any folder
            raise EngineError(
                "input",
                f"{file} takes its places from further files (geolocation arrays), which are not followed.",
                "Save the VRT as a GeoTIFF first.",
            )
        if element.tag in _SOURCE_TAGS and (element.text or "").strip():
            relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
            sources.append(((element.text or "").strip(), relative))
    return sources


def _reason(error: Any, file: Path) -> str:
    text = str(error).replace(str(file), file.name).strip().rstrip(".")
    return text.replace("\n", " ")
