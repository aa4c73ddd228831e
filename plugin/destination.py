"""Where a vector output goes, and everything that can be said against it before the run.

CONTRACTS.md, section 5: nothing here opens a sink, because opening one on an existing GeoPackage
erases every layer in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from osgeo import gdal
from qgis.core import QgsDataSourceUri, QgsVectorFileWriter

from .texts import tr

#: As QGIS splits "provider:uri"; three letters at least, so that C:\ is no provider.
_PROVIDER = re.compile(r"^(\w{3,}?):(.*)$", re.DOTALL)

SQLITE_SUFFIXES = (".gpkg", ".sqlite")
SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")

#: Files that belong to one data set, by the suffix of the one that is named.
_SIBLINGS = {
    ".shp": (".shx", ".dbf", ".prj", ".cpg", ".qpj", ".qix", ".sbn", ".sbx"),
    ".tab": (".dat", ".map", ".id", ".ind"),
    ".mif": (".mid",),
    ".gml": (".xsd", ".gfs"),
}

#: Formats that QGIS offers and that take no fields or no polygons, or cannot be read back (observed).
_POOR_DRIVERS = frozenset({"DGN", "DXF", "GPX", "Interlis 1", "Interlis 2", "PGDUMP", "S57"})

#: What is put around an output's name at most: the sidecar's part file.
_LONGEST_ADDITION = len("." + ".kestrel.json" + ".12345678.part")
_NAME_LIMIT = 255  # bytes, on every file system we know of
_WINDOWS_PATH_LIMIT = 259


@dataclass(frozen=True)
class Destination:
    """A parsed output: ``kind`` is ``memory``, ``file``, ``table`` (of a file) or ``database``."""

    kind: str
    text: str
    path: str = ""
    table: str = ""

    @property
    def on_disk(self) -> bool:
        """Whether there is a file to guard."""
        return self.kind in ("file", "table")

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return os.path.basename(self.path)

    @property
    def sidecar(self) -> str:
        """Path of the sidecar JSON, "" where outputs have none."""
        if not self.on_disk:
            return ""
        middle = f".{self.table}" if self.kind == "table" else ""
        return f"{self.path}{middle}.kestrel.json"

    @property
    def lock(self) -> str:
        """Path of the lock file."""
        return os.path.join(os.path.dirname(self.path), f".{self.name}.lock")

    def family(self) -> list[str]:
        """Every path that may be part of this output, the named file first, its sidecar last."""
        stem, suffix = os.path.splitext(self.path)
        names = [self.path]
        names += [stem + sibling for sibling in _SIBLINGS.get(suffix.lower(), ())]
        if suffix.lower() in SQLITE_SUFFIXES:
            names += [self.path + companion for companion in SQLITE_COMPANIONS]
        return [*names, self.sidecar]


def parse_destination(text: str) -> Destination:
    """Read what a person typed for a vector output, as QGIS would."""
    text = text.strip()
    if text == "TEMPORARY_OUTPUT" or text.startswith("memory:"):
        return Destination("memory", text)
    split = _PROVIDER.match(text)
    if split and split.group(1).lower() == "ogr":
        uri = QgsDataSourceUri(split.group(2))
        path = uri.database() or split.group(2)
        path = os.path.realpath(path)
        return Destination("table", text, path, uri.table() or os.path.basename(path).split(".")[0])
    if split and not os.path.isabs(text):
        return Destination("database", text)
    if not _suffix(text) and not os.path.isdir(text):
        # QGIS does the same, and before it follows a link; "folder.gpkg" for a folder helps nobody
        text += ".gpkg"
    return Destination("file", text, os.path.realpath(text))


def _suffix(path: str) -> str:
    """Return a path's ending without the dot as QGIS sees it, which is one for ``.gpkg`` as well."""
    return os.path.basename(path).rpartition(".")[2] if "." in os.path.basename(path) else ""


def destination_problem(
    destination: Destination, label: str, inputs: Mapping[str, str], loaded: Iterable[str]
) -> str | None:
    """Say in one sentence why ``destination`` cannot be written, or return None.

    ``label``: the parameter's id. ``inputs``: parameter id -> real path of each input file.
    ``loaded``: real paths of the files behind the current project's layers.
    """
    if not destination.on_disk:
        return None
    return (
        _path_problem(destination.path, label)
        or _conflict(destination, label, inputs, loaded)
        or _format_problem(destination, label)
        or _other_layers(destination, label)
    )


def file_problem(path: str, label: str, inputs: Mapping[str, str]) -> str | None:
    """Say why a plain output file (a report) cannot be written, or return None."""
    problem = _path_problem(os.path.realpath(path), label)
    if problem:
        return problem
    for parameter, source in inputs.items():
        if same_path(source, path):
            return tr("{label} is the same file as {parameter} ({path}): choose another file.").format(
                label=label, parameter=parameter, path=path
            )
    return None


def same_path(first: str, second: str) -> bool:
    """Whether two paths name one file, also by link or by letter case."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.normcase(os.path.realpath(first)) == os.path.normcase(os.path.realpath(second))


def unwritable(folder: str, label: str, error: OSError | None = None) -> str:
    """Return the sentence for a folder that takes no file."""
    reason = f" ({error.strerror})" if error and error.strerror else ""
    return tr("{label}: the folder {folder} cannot be written to{reason}; choose another one.").format(
        label=label, folder=folder, reason=reason
    )


def busy(destination: Destination, label: str) -> str:
    """Return the sentence for an output that another run is writing."""
    return tr("{label}: another run is writing {path}; wait for it or choose another file.").format(
        label=label, path=destination.path
    )


def _path_problem(path: str, label: str) -> str | None:
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) + _LONGEST_ADDITION > _NAME_LIMIT or (
        os.name == "nt" and len(path) > _WINDOWS_PATH_LIMIT - _LONGEST_ADDITION
    ):
        return tr("{label}: the file name {name} is too long ({count} characters); shorten it.").format(
            label=label, name=f"{name[:40]}...", count=len(name)
        )
    if not os.path.isdir(folder):
        return tr("{label}: the folder {folder} does not exist; create it or choose another one.").format(
            label=label, folder=folder
        )
    if os.path.isdir(path):
        return tr("{label}: {path} is a folder; choose a file name.").format(label=label, path=path)
    if not os.access(folder, os.W_OK):
        return unwritable(folder, label)
    if os.path.exists(path) and not os.access(path, os.W_OK):
        return tr("{label}: {path} is write-protected; choose another file.").format(label=label, path=path)
    return None


def _format_problem(destination: Destination, label: str) -> str | None:
    suffix = os.path.splitext(destination.path)[1].lower()
    if destination.kind == "table":
        known = suffix in SQLITE_SUFFIXES
        wanted = ".gpkg, .sqlite"
    else:
        known = _is_format(_suffix(destination.path).lower(), _suffix(destination.text).lower())
        wanted = ".gpkg, .geojson, .shp, .fgb"
    if known:
        return None
    return tr("{label}: {name} has an ending that no vector format here has; use one of {wanted}.").format(
        label=label, name=destination.name, wanted=wanted
    )


def _is_format(real: str, typed: str) -> bool:
    """Whether QGIS writes whole features to a file with the ending ``typed``, and under that very name.

    ``real``: the ending behind a link, which GDAL never sees but whoever opens that file does.
    """
    driver = QgsVectorFileWriter.driverForExtension(typed)
    if not driver or driver in _POOR_DRIVERS or real != typed:
        return False
    facts = QgsVectorFileWriter.MetaData()
    if not QgsVectorFileWriter.driverMetadata(driver, facts) or not facts.ext:
        return True
    # to any other ending QGIS adds the driver's first: ships.json becomes ships.json.geojson (3.22)
    return typed in facts.ext.split()


def _conflict(
    destination: Destination, label: str, inputs: Mapping[str, str], loaded: Iterable[str]
) -> str | None:
    for parameter, source in inputs.items():
        if any(same_path(source, path) for path in destination.family()[:1]):
            return tr(
                "{label} is the same file as {parameter} ({path}): choose another file, "
                "so that the input stays as it is."
            ).format(label=label, parameter=parameter, path=destination.path)
    if any(same_path(path, destination.path) for path in loaded):
        return tr("{label}: {path} is loaded in the current project; close the layer first.").format(
            label=label, path=destination.path
        )
    if os.path.splitext(destination.path)[1].lower() in SQLITE_SUFFIXES:
        for companion in SQLITE_COMPANIONS:
            if os.path.exists(destination.path + companion):
                return tr(
                    "{label}: {path} is open in another program ({companion} lies beside it); "
                    "close the layer first."
                ).format(label=label, path=destination.path, companion=destination.name + companion)
    return None


def _other_layers(destination: Destination, label: str) -> str | None:
    """Refuse a plain path to a file with layers of others: replacing the file would lose them."""
    path = destination.path
    if destination.kind != "file" or not os.path.isfile(path):
        return None
    if os.path.splitext(path)[1].lower() not in SQLITE_SUFFIXES:
        return None
    own = destination.name.split(".")[0]  # as QGIS names the layer: up to the first dot
    others = [name for name in layer_names(path) if name != own]
    if not others:
        return None
    return tr(
        "{label}: {path} holds other layers ({others}) that would be lost; to replace one table only, "
        "write {label} as ogr:dbname='{path}' table=\"{own}\" (geom)."
    ).format(label=label, path=path, others=", ".join(others[:5]), own=own)


def layer_names(path: str) -> list[str]:
    """Names of everything a GeoPackage or SQLite file holds: layers, tables, rasters, projects."""
    try:
        data = gdal.OpenEx(path, gdal.OF_VECTOR | gdal.OF_RASTER, open_options=["LIST_ALL_TABLES=YES"])
    except RuntimeError:  # another plugin may have turned GDAL's exceptions on
        return []
    if data is None:
        return []
    names = [data.GetLayer(index).GetName() for index in range(data.GetLayerCount())]
    names += [name.rsplit(":", 1)[-1] for name, _ in data.GetSubDatasets()]
    if data.RasterCount:
        names.append(tr("a raster"))
    return [name for name in names if name != "layer_styles"]
