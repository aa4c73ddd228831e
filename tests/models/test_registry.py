import json
import subprocess
import sys

import pytest
from kestrel.models import registry
from kestrel.models.manifest import FOLDER, read_manifest
from kestrel.models.task import ModelError, SceneInfo
from kestrel.models.weights import load_weights

LAZY = """
import json, sys
sys.path.insert(0, {path!r})
import kestrel.models.registry, kestrel.models.manifest, kestrel.models.task
print(json.dumps([m for m in ("torch", "scipy") if m in sys.modules]))
"""


@pytest.mark.parametrize("name", sorted(registry.MODELS))
def test_smoke_every_builder_can_be_imported(name):
    assert callable(registry.builder(name))


@pytest.mark.parametrize("name", sorted(registry.MODELS))
def test_smoke_every_default_is_shipped_and_intact(name):
    key = registry.entry(name).weights
    entries = read_manifest()
    if key not in entries:
        pytest.skip(f"{name} has no shipped weights")
    entry = entries[key]
    weights = load_weights(FOLDER / entry["file"], entry["sha256"])
    assert weights.card.status == entry["status"]
    assert (FOLDER / entry["file"]).stat().st_size == entry["size"] <= 18_000_000


def test_exception_unknown_model_names_the_known_ones():
    with pytest.raises(ModelError) as error:
        registry.builder("boats")
    assert "'boats'" in error.value.message
    assert "sar_ships" in error.value.hint


def test_feature_a_task_without_torch():
    task = registry.builder("cfar")({}, "", "cpu", SceneInfo(100, 100, "uint8", (10.0, 10.0)))
    assert (task.name, task.model_id) == ("cfar", "kestrel:detectshipscfar")


def test_feature_looking_at_the_table_imports_no_library(tmp_path):
    (tmp_path / "kestrel").symlink_to(FOLDER.parent.parent)
    script = LAZY.format(path=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
