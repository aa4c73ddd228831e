"""Call pip as the user would: with their configuration, proxy and certificates, in a clean environment."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..environment import DROPPED
from . import children, pip_errors

#: Python's and conda's variables lead pip elsewhere (OSGeo4W sets PYTHONEXECUTABLE: qgis/QGIS #67319).
DROPPED_PREFIXES = ("PYTHON", "CONDA_", "DYLD_")
#: Settings of pip that would install outside the runtime or leave packages out.
DROPPED_PIP = frozenset(
    {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_NO_DEPS", "PIP_DRY_RUN", "PIP_REQUIREMENT"}
    | {"PIP_REQUIRE_HASHES", "PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_LOG", "PIP_QUIET", "PIP_VERBOSE"}
)
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "PIP_PROXY")
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: pip itself waits 15 s and asks five times more. On an index that may not exist, twice is enough.
IMPATIENT = ("--retries", "1", "--timeout", "10")
#: The end of the log that is searched for a cause; one call writes less.
LOG_TAIL = 4_000_000
SAID_LINES = 300
LAST_LINES = 100


def installer_environment(
    base: Mapping[str, str],
    *,
    home: Path,
    proxy: str = "",
    no_proxy: str = "",
    certificates: Path | None = None,
    qgis_folders: Sequence[str] = (),
) -> dict[str, str]:
    """Return a copy of ``base`` for venv and pip; ``base`` stays as it is.

    PIP_*, SSL_CERT_*, *_PROXY stay; ``proxy`` and ``certificates`` (QGIS's) fill in where the
    environment names none. Downloads are cached and unpacked below ``home``: they survive an
    interruption, and a small /tmp is no obstacle.
    """
    kept = {name: value for name, value in base.items() if _keep(name.upper())}
    named = {name.upper() for name, value in kept.items() if value}
    if proxy and not named.intersection(PROXIES):
        kept.update(HTTPS_PROXY=proxy, HTTP_PROXY=proxy)
        if no_proxy and "NO_PROXY" not in named:
            kept["NO_PROXY"] = no_proxy
    if certificates and not named.intersection(CERTIFICATES):
        kept["PIP_CERT"] = os.fspath(certificates)
    if not named.intersection(("PIP_CACHE_DIR", "PIP_NO_CACHE_DIR")):
        kept["PIP_CACHE_DIR"] = os.fspath(cache_folder(home))
    temporary = os.fspath(temporary_folder(home))
    kept.update(TMPDIR=temporary, TEMP=temporary, TMP=temporary)
    # a configuration that says `user = true` fails in a virtual environment
    kept.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_COLOR="1")
    conda = base.get("CONDA_PREFIX", "")
    away = [os.path.normcase(os.path.abspath(folder)) for folder in (*qgis_folders, conda) if folder]
    path = next((name for name in kept if name.upper() == "PATH"), "PATH")
    kept[path] = os.pathsep.join(
        folder for folder in kept.get(path, "").split(os.pathsep) if folder and not _below(folder, away)
    )
    return kept


def cache_folder(home: Path) -> Path:
    """Return where downloads are kept until an installation has succeeded."""
    return home / "cache" / "pip"


def temporary_folder(home: Path) -> Path:
    """Return where pip unpacks: on the runtime's own disk."""
    return home / "cache" / "pip-tmp"


def debug_log(home: Path) -> Path:
    """Return where pip's debugging lines go (12 MB an installation): causes are read from there."""
    return home / "cache" / "pip-debug.log"


def last_words(home: Path) -> str:
    """Return the last of pip's debugging lines, for the log of an installation that failed."""
    return "\n".join(_tail(debug_log(home))[-20_000:].splitlines()[-LAST_LINES:])


def downloaded_bytes(home: Path) -> int:
    """Return the bytes pip holds in its temporary folder: they grow while it downloads."""
    return bytes_below(temporary_folder(home))


def run_pip(
    python: Path,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    log: Path,
    *,
    line: Callable[[str], None],
    cancelled: Callable[[], bool],
    stall_s: float,
    size: Callable[[], int] = lambda: 0,
    watch: Callable[[int], None] = lambda bytes_now: None,
    kept_open: Sequence[int] = (),
) -> None:
    """Run ``python -m pip ARGUMENTS``, its debugging lines in ``log``, which starts anew.

    The other arguments are those of ``run_module``. Raises InstallError, children.Cancelled, OSError.
    """
    with contextlib.suppress(OSError):
        log.unlink()
    # on a full disk the log is the first thing that cannot be written
    said: deque[str] = deque(maxlen=SAID_LINES)

    def hear(text: str) -> None:
        said.append(text)
        line(text)

    try:
        code = children.run_module(
            python,
            ["pip", *arguments, "--log", os.fspath(log)],
            environ,
            line=hear,
            cancelled=cancelled,
            stall_s=stall_s,
            size=size,
            watch=watch,
            kept_open=kept_open,
        )
    except children.Stalled:
        text = "\n".join([_tail(log), *said])
        cause = pip_errors.classify(text)
        if cause.code not in ("proxy", "tls", "forbidden", "network", "disk"):
            cause = pip_errors.stalled(text, stall_s)
        raise cause from None
    if code:
        raise pip_errors.classify("\n".join([_tail(log), *said]))


def configured_certificates(text: str) -> bool:
    """Return whether ``pip config list``'s output names a certificate file."""
    return any(each.partition("=")[0].rpartition(".")[2] == "cert" for each in text.splitlines())


def _keep(name: str) -> bool:
    if name in DROPPED or name in DROPPED_PIP:
        return False
    return not name.startswith(DROPPED_PREFIXES)


def _below(folder: str, away: Sequence[str]) -> bool:
    this = os.path.normcase(os.path.abspath(folder))
    return any(this == other or this.startswith(other.rstrip(os.sep) + os.sep) for other in away)


def bytes_below(folder: Path) -> int:
    """Return the bytes of all files below ``folder``; what vanishes meanwhile counts nothing."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total


def _tail(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
