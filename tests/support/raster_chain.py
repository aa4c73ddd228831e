"""A graphical model built in code: dehaze, then warp to another CRS."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
)

from .chain import model_output

Source = QgsProcessingModelChildParameterSource


def build_raster_model(algorithm, *, keep=True, crs="EPSG:32630", **static):
    """``algorithm`` -> gdal:warpreproject to ``crs``, nearest neighbour; ``keep``: both are outputs."""
    model = QgsProcessingModelAlgorithm("clear", "tests")
    model.addModelParameter(
        QgsProcessingParameterRasterLayer("SCENE", "scene"), QgsProcessingModelParameter("SCENE")
    )
    dehaze = QgsProcessingModelChildAlgorithm(algorithm)
    dehaze.setChildId("dehaze")
    dehaze.addParameterSources("INPUT", [Source.fromModelParameter("SCENE")])
    for name, value in static.items():
        dehaze.addParameterSources(name, [Source.fromStaticValue(value)])
    if keep:
        dehaze.setModelOutputs(model_output("dehaze", "clear", "OUTPUT"))
    model.addChildAlgorithm(dehaze)

    warp = QgsProcessingModelChildAlgorithm("gdal:warpreproject")
    warp.setChildId("warp")
    warp.addParameterSources("INPUT", [Source.fromChildOutput("dehaze", "OUTPUT")])
    warp.addParameterSources("TARGET_CRS", [Source.fromStaticValue(crs)])
    warp.addParameterSources("RESAMPLING", [Source.fromStaticValue(0)])
    warp.setModelOutputs(model_output("warp", "warped", "OUTPUT"))
    model.addChildAlgorithm(warp)
    model.initAlgorithm()
    return model
