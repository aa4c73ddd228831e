"""The QGIS side: provider, runtime, worker client, sink guard, styles, menu."""
