"""What a training learns from, however it came: layers, two dates with polygons, or a folder of tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..models.trainable import Training
from .crops import Cut
from .errors import EngineError
from .events import Track
from .job import Job
from .scaling import Scaling
from .scene import Scene, Stamp


@dataclass(frozen=True)
class Named:
    """One input as card, history and report tell it; ``bands``: empty for what is no raster."""

    role: str
    path: Path
    bands: tuple[int, ...]


class Material(Protocol):
    """Opened, refused or warned of, not yet read.

    ``title``: what messages call all of it. ``named``: its inputs, the one whose grid counts first.
    ``first``: a scene of that one, for pixel size and data type. ``stamps``: every file. ``typed``:
    parameters as a command line has them, by names and without folders. ``real``: nothing of it is
    simulated.
    """

    @property
    def title(self) -> str: ...  # noqa: D102 (see the class)

    @property
    def named(self) -> Sequence[Named]: ...  # noqa: D102

    @property
    def first(self) -> Scene: ...  # noqa: D102

    @property
    def stamps(self) -> Sequence[Stamp]: ...  # noqa: D102

    @property
    def typed(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def real(self) -> bool: ...  # noqa: D102

    def stretch(self, track: Track) -> tuple[Scaling, ...]:
        """Fix the one stretch of the run, one for each band of a layer."""

    def cut(self, scalings: Sequence[Scaling], side: int, track: Track, share: tuple[float, float]) -> Cut:
        """Cut the crops; ``share``: from where to where the progress bar moves."""

    def check_unchanged(self) -> None:
        """Raise EngineError when a file was modified since it was opened."""


def check_roles(job: Job, training: Training) -> None:
    """Raise EngineError for an input that a training does not take, and for one that it lacks."""
    known = [*(each.role for each in training.inputs), training.labels]
    unknown = sorted(set(job.inputs) - set(known))
    if unknown:
        raise EngineError("parameter", f"{training.name} learns from no layer {unknown[0]!r}.")
    for role in training.required:
        if role not in job.inputs:
            hint = training.notes.get("missing", {}).get(role, "Choose a layer.")
            raise EngineError(
                "parameter", f"{role.upper()}: a layer is needed to train {training.name}.", hint
            )


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let a refusal begin with ``what``: many files may be read, and two may be called alike."""
    try:
        yield
    except EngineError as error:
        raise type(error)(error.code, f"{what}: {error.message}", error.hint) from None
