"""Run an algorithm as a person does: a layer in the project, the dialog, its button; print JSON at the end.

``python run_dialog.py ALGORITHM PICTURE INPUT NAME=VALUE ...`` in a process of its own, with a display.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QEventLoop, QTimer

ROOT = Path(__file__).resolve().parent.parent.parent


def main():
    algorithm, picture, source, *typed = sys.argv[1:]
    application = QgsApplication([], True)
    application.initQgis()
    sys.path.insert(0, str(ROOT))
    importlib.import_module("conftest")  # makes the checkout importable
    from kestrel.plugin.provider import KestrelProvider
    from processing.core.Processing import Processing
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    Processing.initialize()
    provider = KestrelProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    layer = QgsRasterLayer(source, "input")
    QgsProject.instance().addMapLayer(layer)
    dialog = AlgorithmDialog(QgsApplication.processingRegistry().createAlgorithmById(algorithm), False, None)
    dialog.setParameters({"INPUT": layer.id(), **dict(pair.split("=", 1) for pair in typed)})
    dialog.show()
    told = {"ok": False}
    loop = QEventLoop()

    def finished(ok, results):
        told.update(ok=ok, results=results)
        QTimer.singleShot(0, loop.quit)

    dialog.algorithmFinished.connect(finished)
    QTimer.singleShot(200, lambda: dialog.grab().save(picture))
    QTimer.singleShot(400, dialog.runButton().click)
    QTimer.singleShot(60000, loop.quit)
    loop.exec_()
    told["layers"] = [look(each) for each in QgsProject.instance().mapLayers().values()]
    print(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)  # QGIS may crash in its own shutdown when its objects outlive the application


def look(layer):
    renderer = layer.renderer()
    enhancements = [
        renderer.redContrastEnhancement(),
        renderer.greenContrastEnhancement(),
        renderer.blueContrastEnhancement(),
    ]
    limits = [each and [each.minimumValue(), each.maximumValue()] for each in enhancements]
    return {"file": layer.source(), "limits": limits}


if __name__ == "__main__":
    main()
