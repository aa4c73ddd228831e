"""The worker proves its stack before anything else."""

import subprocess
import sys
from pathlib import Path

import pytest
from kestrel.engine.errors import EngineError
from kestrel.engine.stack import prove_stack

ROOT = Path(__file__).resolve().parents[2]


def test_smoke_leaves_nothing(tmp_path):
    prove_stack(tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []
    prove_stack(None)


def test_exception_scratch_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(EngineError, match="test file cannot be written") as caught:
        prove_stack(tmp_path / "file")
    assert caught.value.code == "output"


def test_fault_25_wrong_proj_environment_is_a_sentence(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from kestrel.engine.stack import prove_stack\n"
        "from kestrel.engine.errors import EngineError\n"
        "try:\n    prove_stack(None)\n"
        "except EngineError as error:\n    print(error.code, '|', error.message, '|', error.hint)\n"
    )
    (tmp_path / "proj.db").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / ".kestrel" / "python")],
        env={"PROJ_LIB": str(tmp_path), "PROJ_DATA": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("runtime | The Python"), done.stdout + done.stderr
    assert "PROJ_LIB" in done.stdout
