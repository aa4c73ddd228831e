"""Turn what pip says into one sentence and a hint: the first cause in the table that its log shows.

pip names the cause anywhere between debugging lines and a last line that blames something else ("No
matching distribution found" when there is no network), so causes come before consequences here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import InstallError


class Cause(NamedTuple):
    """A kind of failure: how pip shows it, and what the user reads."""

    code: str
    pattern: str
    message: str
    hint: str


OFFLINE = (
    "Without a network, give a folder of wheels in WHEELS (made on another machine by `pip download`); "
    "an administrator can also set KESTREL_PYTHON."
)

#: ``{host}`` is the machine pip spoke to, ``{package}`` what it looked for.
CAUSES = (
    Cause(
        "disk",
        r"\[Errno 28\]|No space left on device|\[Errno 122\]|Disk quota exceeded|WinError 112|WinError 39\b",
        "The disk is full.",
        "Free some space, or name a folder on another disk in the variable KESTREL_HOME, and install again.",
    ),
    Cause(
        "proxy",
        r"\b407\b[^\n]*Proxy|Tunnel connection failed: 407|407 Client Error",
        "The proxy before {host} asks for a name and a password (407).",
        "Enter them in QGIS under Settings > Options > Network, or in the variable HTTPS_PROXY.",
    ),
    Cause(
        "proxy",
        r"ProxyError|Cannot connect to proxy|Tunnel connection failed",
        "The proxy cannot be reached or lets nothing through to {host}.",
        "Check the proxy in QGIS under Settings > Options > Network and the variable HTTPS_PROXY. " + OFFLINE,
    ),
    Cause(
        "tls",
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSLError|SSL: |certificate verify failed|"
        r"problem confirming the ssl certificate",
        "The certificate of {host} is not trusted: something on the way, often a company's proxy, opens "
        "the encrypted connection.",
        "Ask your administrator for its certificate and name that file in pip's setting `cert` or the "
        "variable PIP_CERT, or add it to QGIS's certificate authorities.",
    ),
    Cause(
        "hash",
        r"THESE PACKAGES DO NOT MATCH THE HASHES|Hashes are required in --require-hashes",
        "A package from {host} is not the file Kestrel was tested with: its sha256 differs.",
        "Nothing of it was installed. A mirror may have rebuilt it, or the download was altered on the way.",
    ),
    Cause(
        "forbidden",
        r"\b403 (Client )?Error|HTTP error 403\b|\b403 Forbidden",
        "{host} refuses the download (403, access forbidden).",
        "A company's filter or a mirror that wants a login does this: ask your administrator for the address "
        "of a permitted package index and set it in pip's configuration. " + OFFLINE,
    ),
    Cause(
        "forbidden",
        r"\b401 (Client )?Error|HTTP error 401\b|\b401 Unauthorized",
        "{host} asks for a name and a password (401).",
        "Set them in the address of the index in pip's configuration.",
    ),
    Cause(
        "stall",
        r"ReadTimeoutError|Read timed out|The read operation timed out",
        "The connection to {host} stalled: nothing came for a long time.",
        "Install again; what was downloaded is kept. " + OFFLINE,
    ),
    Cause(
        "network",
        r"NewConnectionError|ConnectTimeoutError|NameResolutionError|Failed to establish a new connection|"
        r"Name or service not known|"
        r"Temporary failure in name resolution|getaddrinfo failed|Network is unreachable|Connection refused|"
        r"Connection reset|Connection aborted|RemoteDisconnected|IncompleteRead|ProtocolError|"
        r"IncompleteDownload|incomplete-download",
        "{host} cannot be reached.",
        "Check the network and, in QGIS, Settings > Options > Network for the proxy. " + OFFLINE,
    ),
    Cause(
        "server",
        r"\b5\d\d Server Error|too many 5\d\d error responses|HTTP error (5\d\d|429)|429 Client Error",
        "{host} answers with an error of its own.",
        "Try again later; what was downloaded is kept.",
    ),
    Cause(
        "locked",
        r"WinError 32|WinError 5\b|\[Errno 13\]|Permission denied|Access is denied|\[Errno 26\]|"
        r"Text file busy",
        "A file of the runtime cannot be written: another program holds it, or the folder is read-only.",
        "Close other QGIS windows, let the virus scanner finish, check the rights of KESTREL_HOME, and "
        "install again.",
    ),
    Cause(
        "no_wheel",
        r"No matching distribution found for|Could not find a version that satisfies|"
        r"is not a supported wheel on this platform|not a valid wheel|ResolutionImpossible",
        "No file of {package} fits this Python and system.",
        "In a wheel folder or a company's mirror it may be missing: add it there. Otherwise choose another "
        "Python from 3.11 to 3.13.",
    ),
)

_HOSTS = (
    r"host='([^']+)'",
    r"for url: https?://(?:[^/@\s]*@)?([^/:\s]+)",
    r"Could not fetch URL https?://(?:[^/@\s]*@)?([^/:\s]+)",
    r"Looking in indexes: https?://(?:[^/@\s]*@)?([^/:\s]+)",
)
_PACKAGES = (
    r"No matching distribution found for ([^\s;]+)",
    r"satisfies the requirement ([^\s;]+)",
    r"([\w.+-]+\.whl) is not a (?:supported|valid) wheel",
)


def classify(text: str) -> InstallError:
    """Return the error that explains pip's log ``text``; code ``pip`` where no cause is known."""
    for cause in CAUSES:
        if re.search(cause.pattern, text):
            host = _first(_HOSTS, text) or "the package index"
            package = _first(_PACKAGES, text) or "a package"
            message = cause.message.format(host=host, package=package)
            if message.startswith("the "):
                message = "The " + message[4:]
            return InstallError(cause.code, message, cause.hint)
    last = re.findall(r"ERROR: (.+)", text)
    said = f": {last[-1].strip()[:300]}" if last else ""
    return InstallError("pip", f"pip failed{said}.", "Please report this with the log.")


def stalled(text: str, seconds: float) -> InstallError:
    """Return the error for a pip that did nothing for ``seconds`` and was stopped."""
    cause = next(cause for cause in CAUSES if cause.code == "stall")
    # the debugging lines name the last address before the silence
    asked = re.findall(r"(?:Getting page|Downloading from URL) https?://(?:[^/@\s]*@)?([^/:\s]+)", text)
    host = asked[-1] if asked else _first(_HOSTS, text) or "the package index"
    return InstallError(
        "stall", f"The connection to {host} stalled: nothing came for {seconds:.0f} s.", cause.hint
    )


def _first(patterns: tuple[str, ...], text: str) -> str:
    for pattern in patterns:
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return ""
