"""Layers become plain data: paths, WKT and small files that the worker can open by itself.

Rasters go by path, so that rotated ones, VRTs and ground control points reach the worker as they
are; what is no plain local file (a database, a service, a file inside an archive) is exported.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from osgeo import gdal
from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsDistanceArea,
    QgsFeature,
    QgsFeatureRequest,
    QgsField,
    QgsFields,
    QgsGeometry,
    QgsMapLayer,
    QgsPointXY,
    QgsProcessingFeatureSource,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterDataProvider,
    QgsRasterFileWriter,
    QgsRasterInterface,
    QgsRasterLayer,
    QgsRasterPipe,
    QgsUnitTypes,
    QgsVectorFileWriter,
    QgsWkbTypes,
)

from .fields import field_type
from .texts import tr

_REMOTE = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(_streaming)?[/?]", re.IGNORECASE)


#: ``NETCDF:"a.nc":x``, ``/vsizip/a.zip/b.tif``; three letters at least, so that C:\\ is none.
_INSIDE = re.compile(r"(?:\w{3,}:|/vsi)")

#: Formats that QGIS opens from a local file and the worker does not: they are exported first. None of
#: them leads to the network or runs code, which is why the worker's own list is short.
_EXPORTED = frozenset(
    {"BAG", "GPKG", "HDF4", "HDF4Image", "HDF5", "HDF5Image", "JAXAPALSAR", "KEA", "RS2", "SAFE", "SAR_CEOS"}
    | {"netCDF"}
)


#: What radar's bands are called, as the worker reads it too: ``VV``, ``Sigma0_VH_db``, ``backscatter``.
_RADAR = re.compile(
    r"(?<![a-z])(vv|vh|hh|hv)(?![a-z])|(?<![a-z])(sigma|gamma|beta)[ _-]?(0|zero|nought|naught)|backscatter",
    re.IGNORECASE,
)


class LayerError(Exception):
    """A layer cannot be used; the text is for the user."""


@dataclass(frozen=True)
class RasterFacts:
    """What a raster's header says, for checks before the run.

    ``georeference``: ``affine``, ``gcp``, ``rpc`` or ``none``. ``pixel_m``: mean pixel side in
    metres on the ground at the centre, None where it is unknown. ``palette_bands``: those whose values
    are numbers of colours. ``radar_bands``: those that are called like radar's.
    """

    bands: int
    complex_bands: tuple[int, ...]
    georeference: str
    has_crs: bool
    looks_optical: bool
    pixel_m: float | None
    size: tuple[int, int] = (0, 0)
    palette_bands: tuple[int, ...] = ()
    radar_bands: tuple[int, ...] = ()
    alpha_bands: tuple[int, ...] = ()


def layer_file(layer: QgsMapLayer) -> str:
    """Return the path of the file behind a layer as its provider has it, "" when there is none."""
    provider = layer.providerType() if layer.isValid() else ""
    parts = QgsProviderRegistry.instance().decodeUri(provider, layer.source())
    path = parts.get("path") or ""
    return path if isinstance(path, str) else ""


def gdal_source(layer: QgsMapLayer) -> str:
    """Return what GDAL opens for a layer of QGIS's provider ``gdal``.

    Not :func:`layer_file`, which names the container of what lies in an archive or a GeoPackage.
    """
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    inside = any(isinstance(parts.get(key), str) and parts[key] for key in ("layerName", "vsiPrefix"))
    return layer.source() if inside or not isinstance(parts.get("path"), str) else parts["path"]


def loaded_files(project: QgsProject | None) -> list[str]:
    """Return the real paths of the files behind a project's layers."""
    if project is None:
        return []
    paths = (layer_file(layer) for layer in project.mapLayers().values())
    return [os.path.realpath(path) for path in paths if path and os.path.exists(path)]


def describe_unreadable(text: str, label: str) -> str:
    """Return one sentence saying why a typed raster source cannot be opened."""
    if text.lstrip().startswith("<"):
        return tr("{label}: XML text is not opened as a raster; save it to a file.").format(label=label)
    path = text.partition("|")[0]
    if os.path.isdir(path):
        return tr("{label}: {path} is a folder; choose a raster file.").format(label=label, path=path)
    if is_remote(path):
        return tr("{label}: {path} lies on the network; save it to a local file first.").format(
            label=label, path=path
        )
    if not os.path.exists(path) and _INSIDE.match(path):
        return tr(
            "{label}: {path} is no file, and QGIS opens what lies inside a container by its name only as a "
            "layer of the project; convert it to a GeoTIFF first."
        ).format(label=label, path=path)
    if not os.path.exists(path):
        return tr("{label}: {path} does not exist; choose an existing raster layer or file.").format(
            label=label, path=path or tr("(nothing)")
        )
    if os.path.getsize(path) == 0:
        return tr("{label}: {path} is empty (0 bytes); copy or download it again.").format(
            label=label, path=path
        )
    return tr(
        "{label}: {path} is not a raster that can be read; choose a raster such as a GeoTIFF, "
        "or copy the file again if it is damaged."
    ).format(label=label, path=path)


def is_remote(path: str) -> bool:
    """Whether a GDAL path leads to the network, directly or below an archive."""
    return "://" in path or _REMOTE.search(path) is not None


def raster_facts(
    layer: QgsRasterLayer, context: QgsCoordinateTransformContext, label: str = "INPUT"
) -> RasterFacts:
    """Read a raster layer's header; raises LayerError, naming the parameter ``label``, when GDAL cannot."""
    if layer.providerType() != "gdal":
        size = (layer.width(), layer.height())
        return RasterFacts(layer.bandCount(), (), "affine", layer.crs().isValid(), False, None, size)
    path = gdal_source(layer)
    data = _open(path)
    if data is None:
        raise LayerError(describe_unreadable(path, label))
    bands = [data.GetRasterBand(number) for number in range(1, data.RasterCount + 1)]
    transform = data.GetGeoTransform(can_return_null=True)
    if transform is not None and tuple(transform) == (0, 1, 0, 0, 0, 1):
        transform = None
    if transform is None and data.GetGCPCount() and data.GetGCPProjection():
        georeference, wkt = "gcp", data.GetGCPProjection()
    elif transform is None and data.GetMetadata("RPC") and not data.GetProjection():
        georeference, wkt = "rpc", ""
    else:
        georeference, wkt = ("affine" if transform or data.GetProjection() else "none"), data.GetProjection()
    crs = QgsCoordinateReferenceSystem.fromWkt(wkt) if wkt else QgsCoordinateReferenceSystem()
    return RasterFacts(
        bands=len(bands),
        complex_bands=_which(bands, lambda band: gdal.DataTypeIsComplex(band.DataType)),
        georeference=georeference,
        has_crs=bool(wkt) or georeference == "rpc",
        looks_optical=_looks_optical(bands),
        pixel_m=_pixel_m(transform, data.RasterXSize, data.RasterYSize, crs, context) if transform else None,
        size=(data.RasterXSize, data.RasterYSize),
        palette_bands=_which(bands, lambda band: band.GetColorTable() is not None),
        radar_bands=_which(bands, lambda band: _RADAR.search(band.GetDescription()) is not None),
        alpha_bands=_which(bands, lambda band: band.GetColorInterpretation() == gdal.GCI_AlphaBand),
    )


def _which(bands: list[Any], has: Callable[[Any], bool]) -> tuple[int, ...]:
    """Return the numbers, from 1, of the bands that have something."""
    return tuple(number for number, band in enumerate(bands, 1) if has(band))


def source_files(path: str) -> list[str]:
    """Return the real paths of every file that belongs to a raster: sources, overviews, world files.

    A VRT's sources are looked into as well. What cannot be opened has none but itself.
    """
    found: dict[str, None] = {}
    waiting = [path]
    while waiting:
        name = os.path.realpath(waiting.pop())
        if name in found or not os.path.exists(name):
            continue
        found[name] = None
        data = _open(name) if name == os.path.realpath(path) or name.lower().endswith(".vrt") else None
        waiting += (data.GetFileList() or []) if data is not None else []
    return list(found)


def _open(path: str) -> Any:
    try:
        return gdal.OpenEx(path, gdal.OF_RASTER)
    except RuntimeError:  # another plugin may have turned GDAL's exceptions on
        return None


def _driver(path: str) -> str:
    data = _open(path)
    return "" if data is None else str(data.GetDriver().ShortName)


def _looks_optical(bands: list[Any]) -> bool:
    """Three or four 8-bit bands called red, green and blue are a picture, hardly SAR."""
    wanted = [gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand]
    return (
        len(bands) in (3, 4)
        and all(band.DataType == gdal.GDT_Byte for band in bands)
        and [band.GetColorInterpretation() for band in bands[:3]] == wanted
    )


def _pixel_m(
    transform: Any,
    width: int,
    height: int,
    crs: QgsCoordinateReferenceSystem,
    context: QgsCoordinateTransformContext,
) -> float | None:
    """Measure one pixel at the centre on the ellipsoid, so that degrees and feet become metres."""
    if not crs.isValid():
        return None
    measure = QgsDistanceArea()
    measure.setSourceCrs(crs, context)
    measure.setEllipsoid(crs.ellipsoidAcronym() or "EPSG:7030")

    def at(x: float, y: float) -> QgsPointXY:
        return QgsPointXY(*gdal.ApplyGeoTransform(transform, x, y))

    x, y = width / 2, height / 2
    sides = [
        measure.measureLine(at(x - 0.5, y), at(x + 0.5, y)),
        measure.measureLine(at(x, y - 0.5), at(x, y + 0.5)),
    ]
    if not measure.willUseEllipsoid():
        metres = QgsUnitTypes.DistanceUnit.DistanceMeters
        sides = [measure.convertLengthMeasurement(side, metres) for side in sides]
    mean = math.sqrt(abs(sides[0] * sides[1]))
    return mean if math.isfinite(mean) and mean > 0 else None


class RasterSource:
    """A raster on its way to the worker: made in the main thread, resolved in the algorithm's."""

    def __init__(self, layer: QgsRasterLayer) -> None:
        """Keep the path, or a copy of the provider that may move to another thread."""
        self._provider: QgsRasterDataProvider | None = None
        self._name = re.sub(r"[^\w.-]+", "-", layer.name())[:60] or "input"
        self._gdal_source = gdal_source(layer) if layer.providerType() == "gdal" else ""
        self.path = ""
        if os.path.isfile(self._gdal_source) and _driver(self._gdal_source) not in _EXPORTED:
            # the worker runs in a folder of its own, so a path from a command line must not depend on ours
            self.path = os.path.abspath(self._gdal_source)
        if not self.path and not self._gdal_source:
            provider = layer.dataProvider()
            if not provider.capabilities() & QgsRasterInterface.Capability.Size:
                raise LayerError(
                    tr("{name} is a service without pixels of its own; export it to a GeoTIFF first.").format(
                        name=layer.name()
                    )
                )
            self._provider = provider.clone()

    def resolve(self, scratch: str, feedback: Any) -> str:
        """Return a local file's path, exporting to a tiled GeoTIFF in ``scratch`` if needed."""
        if self.path:
            return self.path
        # the report and messages name this file, so it is called like the layer
        target = os.path.join(scratch, f"{self._name}.tif")
        feedback.pushInfo(
            tr("The worker does not open this kind of source; it is exported to a temporary GeoTIFF first.")
        )
        if self._provider is None:
            _translate(self._gdal_source, target, feedback)
        else:
            _export(self._provider, target, feedback)
        return target


def _translate(source: str, target: str, feedback: Any) -> None:
    data = _open(source)
    done = None
    if data is not None:
        options = gdal.TranslateOptions(
            format="GTiff",
            creationOptions=["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"],
            callback=lambda *_: 0 if feedback.isCanceled() else 1,
        )
        try:
            done = gdal.Translate(target, data, options=options)
        except RuntimeError:
            done = None
    if done is None:
        raise LayerError(
            tr("{source} could not be exported to a GeoTIFF ({reason}).").format(
                source=source, reason=gdal.GetLastErrorMsg() or tr("cancelled")
            )
        )


def _export(provider: QgsRasterDataProvider, target: str, feedback: Any) -> None:
    pipe = QgsRasterPipe()
    pipe.set(provider)
    writer = QgsRasterFileWriter(target)
    writer.setOutputFormat("GTiff")
    writer.setCreateOptions(["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"])
    error = writer.writeRaster(
        pipe,
        provider.xSize(),
        provider.ySize(),
        provider.extent(),
        provider.crs(),
        QgsCoordinateTransformContext(),
    )
    if error != QgsRasterFileWriter.WriterError.NoError or not os.path.exists(target):
        raise LayerError(tr("The layer could not be exported to a GeoTIFF; export it by hand first."))


def _features(source: QgsProcessingFeatureSource, request: QgsFeatureRequest) -> Any:
    """Iterate without QGIS's own validity check, which would stop at the first bad polygon."""
    return source.getFeatures(request, QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks)


def valid_polygon(geometry: QgsGeometry) -> QgsGeometry | None:
    """Return a polygon geometry repaired where needed, or None where nothing polygonal is left."""
    if geometry.isNull() or geometry.isEmpty():
        return None
    if not geometry.isGeosValid():
        geometry = geometry.makeValid()
    if geometry.type() != QgsWkbTypes.GeometryType.PolygonGeometry:
        polygons = [
            part
            for part in geometry.asGeometryCollection()
            if part.type() == QgsWkbTypes.GeometryType.PolygonGeometry
        ]
        geometry = QgsGeometry.collectGeometry(polygons) if polygons else QgsGeometry()
    return None if geometry.isNull() or geometry.isEmpty() else geometry


def area_wkt(
    source: QgsProcessingFeatureSource,
    crs: QgsCoordinateReferenceSystem,
    context: QgsCoordinateTransformContext,
) -> str:
    """Return the union of a source's polygons in ``crs`` as WKT; raises LayerError when empty."""
    request = QgsFeatureRequest()
    if crs.isValid() and source.sourceCrs().isValid():
        request.setDestinationCrs(crs, context)
    parts = [valid_polygon(feature.geometry()) for feature in _features(source, request)]
    union = QgsGeometry.unaryUnion([part for part in parts if part is not None])
    if union.isNull() or union.isEmpty():
        raise LayerError(tr("AOI holds no polygon; choose a layer (or a selection) with at least one."))
    return union.asWkt(17)


def write_polygons(
    source: QgsProcessingFeatureSource,
    path: str,
    context: QgsCoordinateTransformContext,
    label: str = "LAND_MASK",
    name_field: str = "",
) -> tuple[int, int]:
    """Write a source's polygons, in its own CRS, to a FlatGeobuf; return (written, skipped).

    Geometry is repaired; what cannot be is skipped. ``name_field``: the field that goes into ``name``, ""
    for none. Raises LayerError, naming the parameter ``label``, when the file fails.
    """
    fields = QgsFields()
    request = QgsFeatureRequest()
    if name_field:
        fields.append(QgsField("name", field_type("String")))
        request.setSubsetOfAttributes([name_field], source.fields())
    else:
        request.setNoAttributes()
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "FlatGeobuf"
    options.layerName = "polygons"
    writer = QgsVectorFileWriter.create(
        path, fields, QgsWkbTypes.Type.MultiPolygon, source.sourceCrs(), context, options
    )
    if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
        raise LayerError(
            tr("{label} could not be copied: {reason}").format(label=label, reason=writer.errorMessage())
        )
    written = skipped = 0
    for feature in _features(source, request):
        polygon = valid_polygon(feature.geometry())
        if polygon is None:
            skipped += 1
            continue
        polygon.convertToMultiType()
        copy = QgsFeature(fields)
        if name_field:
            value = feature.attribute(name_field)
            copy.setAttribute("name", "" if value in (None, NULL) else str(value))
        copy.setGeometry(polygon)
        if not writer.addFeature(copy):
            raise LayerError(
                tr("{label} could not be copied: {reason}").format(label=label, reason=writer.errorMessage())
            )
        written += 1
    del writer  # closes the file
    return written, skipped
