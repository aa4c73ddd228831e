"""The real worker with another folder of shipped weights: KESTREL_TEST_WEIGHTS."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

spec = importlib.util.spec_from_file_location("kestrel_launch", ROOT / "engine" / "launch.py")
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)

if __name__ == "__main__":
    from kestrel.models import manifest

    manifest.FOLDER = Path(os.environ["KESTREL_TEST_WEIGHTS"])
    code = launch.main()
    sys.stderr.flush()
    os._exit(code)
