"""The package's table of contents: model name -> builder, default weights, presets.

One explicit table. Nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from .task import Builder, ModelError
from .trainable import Trainer


@dataclass(frozen=True)
class Entry:
    """Where a model's builder lives, its default's key in manifest.json ("" = none), its presets.

    ``trainer``: where it learns on a user's own layers, "" = nowhere.
    """

    builder: str
    weights: str
    presets: tuple[str, ...]
    trainer: str = ""


MODELS: dict[str, Entry] = {
    "sar_ships": Entry("sar_ships.task:build", "sar_ships", ("paper",)),
    "cfar": Entry("classical.cfar:build", "", ()),
    "dehazing": Entry("dehazing.task:build", "dehazing", ("small", "paper"), "dehazing.user_training:build"),
    "building_change": Entry(
        "building_change.task:build",
        "building_change",
        ("paper", "small"),
        "building_change.user_training:build",
    ),
    "dark_channel": Entry("classical.dark_channel:build", "", ()),
    "change_vector": Entry("classical.change_vector_task:build", "", ()),
}


def entry(name: str) -> Entry:
    """Return the table's line for ``name``; raises ModelError when there is none."""
    try:
        return MODELS[name]
    except KeyError:
        raise ModelError(
            f"There is no model {name!r}.", f"Known models: {', '.join(sorted(MODELS))}."
        ) from None


def builder(name: str) -> Builder:
    """Import and return the builder of ``name``: (params, weights, device, scene) -> Task."""
    return _imported(entry(name).builder)


def trainer(name: str) -> Trainer:
    """Import and return what trains ``name``: (params, device) -> Training; raises ModelError for none."""
    where = entry(name).trainer
    if not where:
        able = sorted(known for known, line in MODELS.items() if line.trainer)
        raise ModelError(
            f"The model {name!r} cannot be trained here.", f"These can: {', '.join(able) or 'none'}."
        )
    return _imported(where)


def _imported(where: str) -> Any:
    module, _, function = where.partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), function)
