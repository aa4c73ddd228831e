"""A graphical model built in code: detect, then two native algorithms."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
)

Source = QgsProcessingModelChildParameterSource


def build_model(algorithm, areas, **static):
    """Detect -> native:centroids, and detect -> native:joinattributesbylocation with ``areas``."""
    model = QgsProcessingModelAlgorithm("ships", "tests")
    model.addModelParameter(
        QgsProcessingParameterRasterLayer("SCENE", "scene"), QgsProcessingModelParameter("SCENE")
    )
    detect = QgsProcessingModelChildAlgorithm(algorithm)
    detect.setChildId("detect")
    detect.addParameterSources("INPUT", [Source.fromModelParameter("SCENE")])
    for name, value in static.items():
        detect.addParameterSources(name, [Source.fromStaticValue(value)])
    detect.setModelOutputs(model_output("detect", "ships", "OUTPUT"))
    model.addChildAlgorithm(detect)

    centroids = QgsProcessingModelChildAlgorithm("native:centroids")
    centroids.setChildId("centroids")
    centroids.addParameterSources("INPUT", [Source.fromChildOutput("detect", "OUTPUT")])
    centroids.setModelOutputs(model_output("centroids", "points", "OUTPUT"))
    model.addChildAlgorithm(centroids)

    join = QgsProcessingModelChildAlgorithm("native:joinattributesbylocation")
    join.setChildId("join")
    join.addParameterSources("INPUT", [Source.fromChildOutput("detect", "OUTPUT")])
    join.addParameterSources("JOIN", [Source.fromStaticValue(areas)])
    join.addParameterSources("PREDICATE", [Source.fromStaticValue([0])])
    join.addParameterSources("METHOD", [Source.fromStaticValue(0)])
    join.addParameterSources("DISCARD_NONMATCHING", [Source.fromStaticValue(True)])
    join.setModelOutputs(model_output("join", "joined", "OUTPUT"))
    model.addChildAlgorithm(join)
    model.initAlgorithm()
    return model


def model_output(child, name, output):
    found = QgsProcessingModelOutput(name, name)
    found.setChildId(child)
    found.setChildOutputName(output)
    return {name: found}
