"""The guarded sink: a vector output appears whole, or what was there before stays.

CONTRACTS.md, section 5 ("Vectors"). Opening a QGIS sink on an existing GeoPackage path erases every
layer in it, so the old file is set aside first (a file that holds other tables is copied), and put
back on any error, or by the next run after a crash. The note in the lock file says how far a run
came; see :meth:`GuardedOutput.recover`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from types import TracebackType
from typing import Any

from osgeo import gdal, ogr
from qgis.core import QgsFeature, QgsFeatureSink, QgsField, QgsFields, QgsGeometry

from .destination import Destination, busy, same_path, unwritable
from .fields import FieldTable, field_table
from .lockfile import Busy, LockFile
from .texts import tr


class SinkError(Exception):
    """The output could not be written; the text is for the user."""


class SinkCancelled(SinkError):
    """The user cancelled while features were copied."""


class GuardedOutput:
    """One run's hold on one output: ``with GuardedOutput(...) as guard``.

    Entering takes the lock and repairs what an interrupted run left. ``set_aside`` comes right
    before the sink is opened, ``commit`` after everything is written; leaving without ``commit``
    puts the old output back. For outputs that are not files nothing happens.
    """

    def __init__(self, destination: Destination, label: str) -> None:
        """``label``: the parameter's id, for messages."""
        self.destination = destination
        self.label = label
        self._lock = LockFile(destination.lock) if destination.on_disk else None
        self._aside = False

    def __enter__(self) -> GuardedOutput:
        """Take the lock; raises SinkError when another run has it or the folder is read-only."""
        if self._lock is None:
            return self
        try:
            note = self._lock.acquire()
        except Busy:
            raise SinkError(busy(self.destination, self.label)) from None
        except OSError as error:
            folder = os.path.dirname(self.destination.path)
            raise SinkError(unwritable(folder, self.label, error)) from None
        try:
            self.recover(note)
        except OSError as error:
            self._lock.abandon()
            raise SinkError(self._not_restored(error)) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the old output back unless committed, and give the lock back."""
        if self._lock is None:
            return
        if self._aside:
            try:
                self._restore()
            except OSError as problem:
                # the note in the lock file lets the next run finish the restore
                self._lock.abandon()
                raise SinkError(self._not_restored(problem)) from None
        self._lock.release()

    def recover(self, note: dict[str, Any]) -> None:
        """Finish what an interrupted run began: restore, or only clean up when it was done.

        ``note["stage"]``: ``writing`` = new files may lie there, the backups are whole; ``done`` =
        the new output is whole; anything else, also nothing = only put backups back.
        """
        backups = [path for path in self.destination.family() if os.path.exists(backup_path(path))]
        stage = note.get("stage")
        if stage == "done":
            for path in backups:
                os.unlink(backup_path(path))
        elif stage == "writing":
            self._restore()
        elif backups:
            self._put_back()
        for path in self.destination.family():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(backup_path(path) + ".part")

    def set_aside(self) -> None:
        """Move the existing output out of the way, or copy it where only a table is replaced."""
        if self._lock is None:
            return
        present = [path for path in self.destination.family() if os.path.exists(path)]
        try:
            self._lock.note(stage="moving")
            for path in reversed(present):  # the named file last
                if self.destination.kind == "table" and path == self.destination.path:
                    copy_whole(path, backup_path(path))
                else:
                    os.replace(path, backup_path(path))
            self._lock.note(stage="writing")
        except OSError as error:
            with contextlib.suppress(OSError):
                self._put_back()
            raise SinkError(self._failed(error)) from None
        self._aside = True

    def commit(self) -> None:
        """Declare the new output whole and remove the backup."""
        if self._lock is None:
            return
        try:
            _sync(self.destination.path)
            self._lock.note(stage="done")
        except OSError as error:
            raise SinkError(self._failed(error)) from None
        self._aside = False
        for path in self.destination.family():
            with contextlib.suppress(OSError):  # what stays is removed by the next run
                os.unlink(backup_path(path))

    def _restore(self) -> None:
        """Remove the new, unfinished files and put the old ones back."""
        assert self._lock is not None
        for path in self.destination.family():
            if not os.path.exists(backup_path(path)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        with contextlib.suppress(OSError):  # a full disk must not stop the restore
            self._lock.note(stage="restoring")
        self._put_back()
        self._aside = False

    def _put_back(self) -> None:
        for path in self.destination.family():
            if os.path.exists(backup_path(path)):
                os.replace(backup_path(path), path)

    def _failed(self, error: OSError) -> str:
        return tr("{label}: {path} could not be replaced ({reason}); close it in other programs.").format(
            label=self.label, path=self.destination.path, reason=error.strerror or error
        )

    def _not_restored(self, error: OSError) -> str:
        return tr(
            "{label}: the old {path} could not be put back ({reason}); it lies in {backup}. Close it in "
            "other programs and run again."
        ).format(
            label=self.label,
            path=self.destination.path,
            reason=error.strerror or error,
            backup=backup_path(self.destination.path),
        )


def backup_path(path: str) -> str:
    """Return where an existing file waits while its successor is written."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.bak")


def interrupted(destination: Destination) -> bool:
    """Whether an earlier run to this output seems to have been cut off (or is still running)."""
    return destination.on_disk and (
        os.path.exists(destination.lock)
        or any(os.path.exists(backup_path(path)) for path in destination.family())
    )


class Boxes:
    """The worker's scratch FlatGeobuf: its CRS, its count and its features in file order."""

    def __init__(self, path: str, table: FieldTable | None = None) -> None:
        """Open ``path``; raises SinkError when it does not hold the fields of ``table`` (None: boxes')."""
        try:
            self._data = gdal.OpenEx(path, gdal.OF_VECTOR)
        except RuntimeError:  # another plugin may have turned GDAL's exceptions on
            self._data = None
        if self._data is None:
            raise SinkError(tr("The worker left no readable features in {path}.").format(path=path))
        self._layer: ogr.Layer = self._data.GetLayer(0)
        definition = self._layer.GetLayerDefn()
        names = [definition.GetFieldDefn(i).GetName() for i in range(definition.GetFieldCount())]
        wanted = [name for name, _, _ in table or field_table()]
        if names != wanted:
            raise SinkError(
                tr("The worker wrote the fields {names} instead of {wanted}; update the plugin.").format(
                    names=", ".join(names), wanted=", ".join(wanted)
                )
            )
        reference = self._layer.GetSpatialRef()
        self.crs_wkt: str = reference.ExportToWkt(["FORMAT=WKT2_2019"]) if reference else ""

    def __len__(self) -> int:
        return int(self._layer.GetFeatureCount())

    def copy_to(self, sink: QgsFeatureSink, fields: QgsFields, feedback: Any) -> int:
        """Add every feature to ``sink`` and return how many; raises SinkError, SinkCancelled."""
        count = 0
        self._layer.ResetReading()
        for source in self._layer:
            if feedback.isCanceled():
                raise SinkCancelled(tr("Cancelled; nothing was written."))
            feature = QgsFeature(fields)
            feature.setAttributes([_value(source, i) for i in range(len(fields))])
            shape = source.GetGeometryRef()
            if shape is not None:
                geometry = QgsGeometry()
                geometry.fromWkb(bytes(shape.ExportToWkb()))
                feature.setGeometry(geometry)
            if not sink.addFeature(feature, QgsFeatureSink.Flag.FastInsert):
                raise SinkError(
                    tr("Feature {number} could not be written: {reason}").format(
                        number=count + 1, reason=sink.lastError() or tr("the disk may be full.")
                    )
                )
            count += 1
        return count


def verify(destination: Destination, written: str, count: int) -> None:
    """Read the closed output again; raises SinkError unless it holds ``count`` features.

    ``written``: the destination id the sink returned. A full disk may be silent until here.
    """
    if not destination.on_disk:
        return
    path, _, rest = written.partition("|layername=")
    if not same_path(path, destination.path):
        raise SinkError(
            tr("The features went to {path} instead of {wanted}.").format(path=path, wanted=destination.path)
        )
    try:
        data = gdal.OpenEx(path, gdal.OF_VECTOR)
    except RuntimeError:
        data = None
    layer = None
    if data is not None:
        layer = data.GetLayerByName(rest) if rest else data.GetLayer(0)
    found = 0 if layer is None else sum(1 for _ in layer)
    if found != count:
        raise SinkError(
            tr("{path} holds {found} of {count} features after writing; is the disk full?").format(
                path=path, found=found, count=count
            )
        )


def sink_fields(table: FieldTable | None = None) -> QgsFields:
    """Return the output's fields with their aliases; those of boxes without a ``table``."""
    fields = QgsFields()
    for name, kind, alias in table or field_table():
        field = QgsField(name, kind)
        field.setAlias(tr(alias))
        fields.append(field)
    return fields


def _value(feature: ogr.Feature, index: int) -> Any:
    if not feature.IsFieldSetAndNotNull(index):
        return None
    definition = feature.GetFieldDefnRef(index)
    if definition.GetSubType() == ogr.OFSTBoolean:
        return bool(feature.GetFieldAsInteger(index))
    return feature.GetField(index)


def copy_whole(source: str, target: str) -> None:
    """Copy so that ``target`` is whole whenever it exists."""
    part = target + ".part"
    try:
        shutil.copyfile(source, part)
        shutil.copystat(source, part)
        _sync(part)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
