"""The engine: rasters in, layers out. Imports nothing here, because QGIS's Python reads engine.job."""
