"""What QGIS knows of the network and pip does not: its proxy, its certificates. Imports QGIS.

Asked in the main thread: QGIS's network manager and its authentication database live there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from qgis.core import QgsApplication, QgsNetworkAccessManager
from qgis.PyQt.QtNetwork import QNetworkProxy

from .. import paths


@dataclass(frozen=True)
class Network:
    """QGIS's settings in pip's words; empty where QGIS has none. ``warning``: what cannot be used."""

    proxy: str = ""
    no_proxy: str = ""
    certificates: Path | None = None
    folders: tuple[str, ...] = ()
    warning: str = ""


def network() -> Network:
    """Return QGIS's proxy, its certificates written to a file below KESTREL_HOME, its folders."""
    proxy, no_proxy, warning = _proxy()
    return Network(proxy, no_proxy, _certificates(), _folders(), warning)


def _proxy() -> tuple[str, str, str]:
    """Return (address, hosts reached without it, warning); the system's proxy is pip's own matter."""
    manager = QgsNetworkAccessManager.instance()
    proxy = manager.fallbackProxy()
    types = QNetworkProxy.ProxyType
    if proxy.type() in (types.DefaultProxy, types.NoProxy) or not proxy.hostName():
        return "", "", ""
    if proxy.type() not in (types.HttpProxy, types.HttpCachingProxy):
        return "", "", "QGIS's proxy is no HTTP proxy, which is the only kind that can be used here."
    user = f"{quote(proxy.user(), safe='')}:{quote(proxy.password(), safe='')}@" if proxy.user() else ""
    host = f"[{proxy.hostName()}]" if ":" in proxy.hostName() else proxy.hostName()
    port = f":{proxy.port()}" if proxy.port() else ""
    # QGIS excludes addresses, pip hosts
    hosts = (urlsplit(text if "//" in text else f"//{text}").hostname for text in _excluded(manager))
    return f"http://{user}{host}{port}", ",".join(sorted({name for name in hosts if name})), ""


def _excluded(manager: QgsNetworkAccessManager) -> list[str]:
    return [*manager.excludeList(), *manager.noProxyList()]


def _certificates() -> Path | None:
    """Return a file with every authority QGIS trusts, where somebody added one to the system's."""
    manager = QgsApplication.authManager()
    if manager is None or manager.isDisabled():
        return None
    if not (manager.extraFileCAs() or manager.databaseCAs()):
        return None
    # public certificates; without a folder to write in, the installation says so itself
    with contextlib.suppress(OSError):
        path = paths.cache_folder() / "qgis-certificates.pem"
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(bytes(manager.trustedCaCertsPemText()))
        os.replace(part, path)
        return path
    return None


def _folders() -> tuple[str, ...]:
    """Return the folders of QGIS's own programs; on Linux these are the system's and stay on PATH."""
    if sys.platform not in ("win32", "darwin"):
        return ()
    return tuple({QgsApplication.applicationDirPath(), QgsApplication.prefixPath(), sys.prefix} - {""})
