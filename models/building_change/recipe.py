"""How the shipped weights are made: one training, its ablations, and what its data are.

``scripts/train_building_change.py`` runs it. Budgets are steps, so that the same seed, threads and
versions give the same weights again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SOURCES: tuple[dict[str, Any], ...] = (
    {
        "source": "LEVIR-CD (its test split), images up to 26",
        "what": "48 quadrants of 512 px, two dates of 2002 to 2018, 0.5 m, Texas, new and removed buildings",
        "bands": "red, green, blue",
        "licence": "none stated by the copy (github DoctFaust/Building_change_detection_system, commit "
        "49a83ebf); LEVIR-CD is for academic use (Chen and Shi 2020); imagery: Google Earth",
        "images": 48,
        "real": True,
    },
    {
        "source": "drawn buildings",
        "what": "roofs with shadows on the later date of those quadrants, by "
        "kestrel.models.building_change.simulate",
        "bands": "red, green, blue",
        "licence": "GPL-2.0-or-later (own)",
        "images": 0,
        "real": False,
    },
)
#: What the card of weights says that nobody has measured.
UNMEASURED = "Not measured yet; only the validation images were looked at."

#: Seeds of the ablation: with one, single evaluations wander by as much as the modules give.
ABLATION_SEEDS = (0, 1, 2)
#: The four rows of the paper's table 3, and the switches that make them.
ABLATIONS = {
    "backbone": ("--no-csh", "--no-ssif"),
    "csh": ("--no-ssif",),
    "ssif": ("--no-csh",),
    "ssanet": (),
}


@dataclass(frozen=True)
class Stage:
    """One training: its folder's name, its arguments and its CPU threads."""

    name: str
    arguments: tuple[str, ...]
    threads: int


#: The shipped training's first part stops here, for want of time: before its learning rate had fallen.
STOPPED = 2438


def shipped(seed: int, threads: int = 2) -> list[Stage]:
    """The paper's network on all training quadrants, an hour and a half on two busy cores.

    The first part is a training of 3,600 steps that is stopped, the second begins from its average and
    brings the learning rate from there to 0. Validations choose the epoch.
    """
    typed = "--preset paper --batch 8 --crop 128"
    first = f"{typed} --steps 3600 --stop-after {STOPPED} --lr 0.001 --validations 14 --seed {seed}"
    last = f"{typed} --steps 480 --lr 0.00036 --validations 4 --seed {seed + 1} --init"
    return [
        Stage("first", tuple(first.split()), threads),
        Stage("paper", (*last.split(), "first/checkpoint.safetensors"), threads),
    ]


def ablations() -> list[Stage]:
    """All rows with all seeds, the same steps of small crops each.

    At half width and 64 px a step takes a tenth of the shipped training's time; the plain backbone has
    four times the parameters of the rest, as in the paper.
    """
    typed = "--preset small --steps 600 --batch 8 --crop 64 --lr 0.001 --validations 2"
    return [
        Stage(f"{name}_{seed}", (*typed.split(), "--seed", str(seed), *switches), threads=1)
        for seed in ABLATION_SEEDS
        for name, switches in ABLATIONS.items()
    ]
