"""How the shipped weights are made: the trainings in their order, and what their data are.

``scripts/train_dehazing.py`` runs it. Budgets are steps, so that the same seed, threads and versions
give the same weights again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .data import BLOCKS

SOURCES: dict[str, dict[str, Any]] = {
    "simulated": {
        "source": "RSSCN7 under simulated haze",
        "what": "clear scenes of 200 px, true colour, made hazy by kestrel.models.dehazing.simulate (TRAIN)",
        "bands": "red, green, blue (true colour)",
        "licence": "none stated; imagery: Google Earth (github palewithout/RSSCN7, commit 6d77849d)",
        "real": False,
    },
    "real": {
        "source": "Landsat 8 pairs that match RICE-II",
        "what": "hazy and clear dates within about 15 days, 320 px, 30 m",
        "bands": "mostly SWIR, NIR, green (false colour)",
        "licence": "none stated (github TesiLin/3S_Cloud_Removal, commit 0effed36); Landsat imagery is "
        "public domain",
        "real": True,
    },
}
#: What the card of weights says that nobody has measured.
UNMEASURED = "Not measured yet; only the loss and simulated validation scenes were watched."

#: The real pairs are few and in false colour; every fourth crop keeps true colour and thick haze in view.
#: The first recipe, every other crop at a quarter of the rate, got no further on real pairs than an affine.
REAL_SHARE = 0.75
#: Part of the real crops whose haze is thinned, so that nearly clear ones are seen: the first recipe had
#: none and took 4.7 dB from nearly clear scenes. What thinning alone does was not measured.
THINNED = 0.3


@dataclass(frozen=True)
class Stage:
    """One training: its folder's name, its arguments, its CPU threads, and the stage it starts from."""

    name: str
    arguments: tuple[str, ...]
    threads: int
    after: str = ""


def pretraining(seed: int) -> Stage:
    """From random numbers, on simulated haze alone."""
    typed = f"--preset small --steps 1400 --batch 8 --crop 96 --lr 0.001 --validations 5 --seed {seed}"
    return Stage("pretrain", tuple(typed.split()), threads=2)


def fine_tuning(seed: int, hold_out: int) -> Stage:
    """From the pretrained average on simulated and real crops, one block of real pairs left out; -1 none."""
    typed = (
        f"--steps 1300 --batch 8 --crop 96 --lr 0.002 --real-share {REAL_SHARE} --thinned {THINNED} "
        f"--hold-out {hold_out} --validations 2 --seed {seed}"
    )
    name = "all" if hold_out < 0 else f"fold{hold_out}"
    return Stage(name, tuple(typed.split()), threads=1, after="pretrain")


def fine_tunings(seed: int) -> list[Stage]:
    """Five for the cross-validation, and the one on all blocks, which ships."""
    return [fine_tuning(seed, block) for block in (*range(BLOCKS), -1)]
