"""The child's environment: QGIS's own, without what would mislead another Python.

Observed: PROJ_LIB set to QGIS's proj.db breaks the rasterio wheel in a child too, and a
LD_LIBRARY_PATH of QGIS's launcher loads a second GDAL (QGIS.md, section 1).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

DROPPED = frozenset(
    {
        "__PYVENV_LAUNCHER__",
        "VIRTUAL_ENV",
        "QGIS_PREFIX_PATH",
        "QGIS_PLUGINPATH",
        "PROJ_DATA",
        "PROJ_LIB",
        "GDAL_DATA",
        "GDAL_DRIVER_PATH",
        # Python code inside a VRT must stay off, whatever the user's shell says
        "GDAL_VRT_ENABLE_PYTHON",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        # matplotlib would look for QGIS's Qt
        "MPLBACKEND",
    }
)

DROPPED_PREFIXES = ("PYTHON", "CONDA_", "PIP_", "DYLD_", "SSL_CERT_")


def child_environment(
    base: Mapping[str, str], *, home: Path | None = None, log: Path | None = None
) -> dict[str, str]:
    """Return a cleaned copy of ``base`` for the worker or a probe; ``base`` itself stays as it is.

    ``home`` and ``log`` become KESTREL_HOME and KESTREL_LOG, so that both sides agree on them.
    """
    kept = {
        name: value
        for name, value in base.items()
        # Windows knows names in any case
        if name.upper() not in DROPPED and not name.upper().startswith(DROPPED_PREFIXES)
    }
    if home is not None:
        kept["KESTREL_HOME"] = os.fspath(home)
    if log is not None:
        kept["KESTREL_LOG"] = os.fspath(log)
    return kept
