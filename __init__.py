"""Kestrel: Earth-observation models as QGIS Processing algorithms.

The repository root is the QGIS plugin and the Python package ``kestrel``; this file holds the
entry point QGIS looks for and nothing else, so that importing the package outside QGIS is free.
"""


def classFactory(iface):  # type: ignore[no-untyped-def]
    """Return the plugin object for QGIS; ``iface`` is None under qgis_process."""
    from .plugin.kestrel_plugin import KestrelPlugin

    return KestrelPlugin(iface)
