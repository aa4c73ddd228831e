"""The pages under docs/algorithms come from the dialogs' help and are up to date."""

import os
import subprocess
import sys

from kestrel.tests.support.algorithm_tools import ROOT


def test_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_docs.py"), "--check"],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
