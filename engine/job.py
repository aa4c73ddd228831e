"""What crosses the process border: the Job and the worker's messages, as JSON lines.

The only module that both sides import: QGIS's Python (3.9 on some systems) builds Jobs, the
runtime's Python reads them. So: standard library only, and nothing newer than Python 3.9.
Protocol and fields: CONTRACTS.md, sections 2 and 3.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

JOB_VERSION = 1
PROTOCOL_VERSION = 1

KINDS = ("predict", "train", "evaluate", "status")

#: Messages each side may send. Unknown fields are ignored, unknown types are errors.
TO_WORKER = ("run", "cancel", "quit")
FROM_WORKER = ("hello", "progress", "log", "alive", "result", "error")

EXIT_RESULT = 0
EXIT_ERROR = 1
EXIT_PROTOCOL = 2
EXIT_CANCELLED = 3


class JobError(ValueError):
    """A Job or a message that does not follow the contract."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One unit of work for the worker.

    ``inputs`` maps a role to ``{"path": str, "bands": [int, ...]}`` (bands count from 1; a vector
    input such as ``land`` has no bands). ``extent`` is ``[xmin, ymin, xmax, ymax]``; ``extent`` and
    ``aoi_wkt`` are in ``crs_wkt``, which may differ from the raster's. ``params`` are the
    algorithm's parameters, keys in lower case. ``outputs`` maps a name to the path the worker is to
    write. ``scratch`` is a folder the worker may fill; the caller removes it. ``device`` is
    ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    kind: str
    model: str
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, str]
    params: dict[str, Any]
    scratch: str = ""
    device: str = "auto"
    extent: list[float] | None = None
    aoi_wkt: str | None = None
    crs_wkt: str | None = None
    version: int = JOB_VERSION

    def __post_init__(self) -> None:
        """Refuse what the contract does not allow; raises JobError naming field and value."""
        if type(self.version) is not int or self.version != JOB_VERSION:
            raise JobError(f"Job version {self.version!r} is not {JOB_VERSION}; update the plugin.")
        if self.kind not in KINDS:
            raise JobError(f"Job kind {self.kind!r} is none of {', '.join(KINDS)}.")
        for name in ("model", "scratch", "device"):
            if not isinstance(getattr(self, name), str):
                raise JobError(f"Job field {name} must be text, not {getattr(self, name)!r}.")
        for name in ("inputs", "outputs", "params"):
            if not isinstance(getattr(self, name), dict):
                raise JobError(f"Job field {name} must be an object, not {getattr(self, name)!r}.")
        for role, entry in self.inputs.items():
            _check_input(role, entry)
        for name, path in self.outputs.items():
            if not isinstance(path, str):
                raise JobError(f"Job output {name} must be a path, not {path!r}.")
        for name in ("aoi_wkt", "crs_wkt"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise JobError(f"Job field {name} must be text, not {getattr(self, name)!r}.")
        if self.extent is not None:
            _check_extent(self.extent)

    def to_json(self) -> str:
        """Return the Job as one line of JSON (no NaN: JSON has none)."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a Job; raises JobError on anything unknown or missing."""
        try:
            fields = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise JobError(f"The Job is not JSON: {error}.") from None
        return cls.from_dict(fields)

    @classmethod
    def from_dict(cls, fields: Any) -> Job:
        """Build a Job from a decoded JSON object; raises JobError on unknown or missing fields."""
        if not isinstance(fields, dict):
            raise JobError(f"A Job is a JSON object, not {type(fields).__name__}.")
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise JobError(f"Unknown Job fields: {', '.join(unknown)}.")
        missing = sorted(
            name
            for name, field in known.items()
            if name not in fields
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )
        if missing:
            raise JobError(f"Missing Job fields: {', '.join(missing)}.")
        return cls(**fields)


def _check_input(role: str, entry: Any) -> None:
    if not isinstance(entry, dict) or set(entry) - {"path", "bands"} or "path" not in entry:
        raise JobError(f"Job input {role} must hold 'path' and 'bands', not {entry!r}.")
    if not isinstance(entry["path"], str):
        raise JobError(f"Job input {role} needs a path, not {entry['path']!r}.")
    bands = entry.get("bands", [])
    if not isinstance(bands, list) or any(
        not isinstance(b, int) or isinstance(b, bool) or b < 1 for b in bands
    ):
        raise JobError(f"Job input {role}: bands are whole numbers from 1, not {bands!r}.")


def _check_extent(extent: Any) -> None:
    numbers = isinstance(extent, list) and len(extent) == 4 and all(_finite(v) for v in extent)
    if not numbers or extent[0] >= extent[2] or extent[1] >= extent[3]:
        raise JobError(f"Job extent must be [xmin, ymin, xmax, ymax], not {extent!r}.")


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's whole numbers have no limit, floats do
        return False


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def encode_message(kind: str, **fields: Any) -> str:
    """Return one protocol line, newline included; non-finite numbers are refused by JSON."""
    if kind not in TO_WORKER and kind not in FROM_WORKER:
        raise JobError(f"Unknown message type {kind!r}.")
    return json.dumps({"type": kind, **fields}, allow_nan=False) + "\n"


def decode_message(line: str, known: Any) -> dict[str, Any]:
    """Read one protocol line whose type is one of ``known``; raises JobError otherwise."""
    try:
        message = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise JobError(f"Not a message: {line[:200]!r}.") from None
    if not isinstance(message, dict) or message.get("type") not in known:
        raise JobError(f"Not a message of type {', '.join(known)}: {line[:200]!r}.")
    return message
