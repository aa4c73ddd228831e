"""Run kestrel:detectshipscfar with a stub worker and die by SIGKILL at a chosen point.

Usage: python crash_run.py SCENE OUTPUT POINT, POINT = aside, copy, closed, style.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
spec = importlib.util.spec_from_file_location("conftest", ROOT / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))

from kestrel.algorithms import boxes, scenes  # noqa: E402
from kestrel.algorithms.detect_ships_cfar import DetectShipsCfar  # noqa: E402
from kestrel.plugin import sink  # noqa: E402
from kestrel.tests.support.algorithm_tools import StubWorker  # noqa: E402
from qgis.core import QgsApplication, QgsProcessingContext, QgsProcessingFeedback  # noqa: E402


def die(*_args, **_more):
    os.kill(os.getpid(), signal.SIGKILL)


def main(scene, output, point):
    application = QgsApplication([], False)
    application.initQgis()
    boxes.run_job = StubWorker(count=2000)
    if point == "aside":
        boxes.BoxAlgorithm.parameterAsSink = die
    elif point == "copy":
        value = sink._value

        def dying(feature, index):
            # far enough for the first transaction to be on the disk
            return die() if feature.GetFID() >= 1500 else value(feature, index)

        sink._value = dying
    elif point == "closed":
        scenes.verify = die
    elif point == "style":
        boxes.store_style = die
    else:
        raise SystemExit(f"no point {point}")
    algorithm = DetectShipsCfar().create()
    algorithm.run({"INPUT": scene, "OUTPUT": output}, QgsProcessingContext(), QgsProcessingFeedback())
    raise SystemExit("the run did not die")


main(*sys.argv[1:])
