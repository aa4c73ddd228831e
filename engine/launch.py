"""Start the worker: ``python -I -u <plugin>/engine/launch.py``.

Started by path, because under ``-I`` the interpreter sees neither the current folder nor
PYTHONPATH, and because nothing of Kestrel is installed into a runtime. Importing this file only
registers the package ``kestrel`` from its own folder, whatever that folder is called; a spawned
pool imports it again and must not start a second worker, hence the guard at the end.

Valid Python 3.9, standard library only: an interpreter too old for the engine gets a message.
"""

from __future__ import annotations

import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: Oldest Python the engine and the models are written for.
MINIMUM = (3, 11)


def register() -> None:
    """Make the folder above this one importable as package ``kestrel``."""
    if "kestrel" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "kestrel", os.path.join(ROOT, "__init__.py"), submodule_search_locations=[ROOT]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"There is no Kestrel in {ROOT}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["kestrel"] = module
    spec.loader.exec_module(module)


def add_library_folders() -> None:
    """Windows: let extension modules find the DLLs that conda keeps in ``Library/bin``."""
    if os.name != "nt":
        return
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        folder = os.path.join(prefix, "Library", "bin")
        if os.path.isdir(folder):
            os.add_dll_directory(folder)  # type: ignore[attr-defined,unused-ignore]


def main() -> int:
    """Take the standard streams, run the worker, return its exit code."""
    from kestrel.engine.protocol_io import take_streams

    lines, protocol = take_streams()
    if sys.version_info < MINIMUM:
        from kestrel.engine.job import EXIT_ERROR, encode_message

        found = ".".join(str(part) for part in sys.version_info[:3])
        protocol.write(
            encode_message(
                "error",
                code="runtime",
                message=f"{sys.executable} is Python {found}, Kestrel's models need 3.11 or newer.",
                hint="Choose a newer Python in the setting kestrel/python or in KESTREL_PYTHON.",
                log=os.environ.get("KESTREL_LOG", ""),
            )
        )
        protocol.flush()
        return EXIT_ERROR
    add_library_folders()
    from kestrel.engine.worker import serve

    return serve(lines, protocol)


register()

if __name__ == "__main__":
    code = main()
    # no interpreter shutdown: threads of a model library may hang or crash in it, and every
    # output is closed by now
    sys.stderr.flush()
    os._exit(code)
