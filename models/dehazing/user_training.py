"""DWTMA-Net learns on a user's own layers: hazy and clear pairs, clear ones under simulated haze, or both.

The loop is trainer.py's; here the engine's crops become its batches, and its end becomes a card with
what validation crops say - in the half precision that the file holds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..device import torch_device, use_threads
from ..scaling import stretch_from
from ..task import Input, ModelError
from ..trainable import Crops, Example, Moment, Trained, Training
from ..training.checkpoint import drop_unreadable
from ..training.typed import LEAST_CROPS, LIMITS, Numbers, evenly, read_base, read_numbers
from .data import Pairs, Sampler, simulated_pairs, unit
from .metrics import Scores, evaluate, fit_bands, interval
from .network import PRESETS, DWTMANet
from .recipe import THINNED
from .restore import restore
from .simulate import TRAIN
from .task import MULTIPLE
from .trainer import BEST_PSNR, CHECKPOINT, Events, Progress, Result, TrainConfig, mean_psnr, train
from .weights import GSD, Start, as_stored, describe, preset_of, read_start

#: As every training's, but for the crops' default.
OWN_LIMITS = {**LIMITS, "crop": (32, 1024, 96)}
#: Part of the crops that come from pairs where haze is simulated as well: none of both is the rarer one.
REAL_SHARE = 0.5
#: Crops that are scored after an epoch, and at the end; spread evenly. Scoring one takes a step's share.
WATCHED, SCORED = 48, 400
#: Simulated pairs that the affine baseline is fitted on; three gains and offsets need no more.
FITTED = 64
WARMUP = 50


@dataclass(frozen=True)
class Wishes(Numbers):
    """What was typed, checked."""

    simulate: bool
    preset: str
    device: str
    start: Start | None

    @property
    def network(self) -> dict[str, Any]:
        """Return the network's arguments."""
        return dict(self.start.network) if self.start else dict(PRESETS[self.preset])


def build(params: Mapping[str, Any], device: str) -> Training:
    """Return the training; raises ModelError for anything that does not fit, before a layer is read.

    ``params``: ``simulate``, ``preset``, ``epochs``, ``batch``, ``crop``, ``learning_rate``,
    ``base_weights``, ``seed``, ``stretch_min``, ``stretch_max``; missing = default.
    """
    wishes = read_wishes(params, device)
    torch_device(device)
    use_threads()
    scale = stretch_from(params)
    hazy, clear = (Input(role, bands=3, scale=scale, fill="nearest") for role in ("hazy", "clear"))
    notes: dict[str, Any] = {
        "algorithm": "kestrel:traindehazing",
        "missing": {
            "hazy": "Choose a hazy layer of the same ground, or SIMULATE to lay haze over the clear one.",
            "clear": "Choose a layer without haze.",
        },
    }
    if wishes.simulate:
        notes["warnings"] = ["Haze is simulated: how real haze is removed has to be seen on real layers."]
    return Training(
        name="dehazing",
        inputs=(hazy, clear),
        required=("clear",) if wishes.simulate else ("hazy", "clear"),
        crop=wishes.crop,
        least=LEAST_CROPS,
        learn=functools.partial(learn, wishes),
        key=wishes.start.source if wishes.start else "",
        notes=notes,
    )


def read_wishes(params: Mapping[str, Any], device: str) -> Wishes:
    """Check what was typed; raises ModelError in one sentence."""
    numbers = read_numbers(params, OWN_LIMITS, MULTIPLE)
    preset = params.get("preset") or "small"
    if preset not in PRESETS:
        raise ModelError(f"PRESET is {preset!r}; it must be one of {', '.join(PRESETS)}.")
    simulate = params.get("simulate", False)
    if not isinstance(simulate, bool):
        raise ModelError(f"SIMULATE is {simulate!r}; it must be true or false.")
    start = _fitting(read_base(params, read_start), preset, str(params.get("base_weights") or ""))
    return Wishes(**vars(numbers), simulate=simulate, preset=preset, device=device, start=start)


def _fitting(start: Start | None, preset: str, typed: str) -> Start | None:
    """Return the base weights; raises ModelError where they are of another preset."""
    if start is not None and start.network != DWTMANet(**PRESETS[preset]).config:
        theirs = preset_of(start.network)
        raise ModelError(
            f"BASE_WEIGHTS {Path(typed).name} are of the preset {theirs}, but PRESET is {preset}.",
            f"Set PRESET to {theirs}." if theirs in PRESETS else "Choose other weights.",
        )
    return start


def learn(
    wishes: Wishes,
    crops: Crops,
    folder: Path,
    tell: Callable[[Moment], None],
    stop: Callable[[], bool],
) -> Trained | None:
    """Train, or go on; see models/trainable.py."""
    own, held_out = (_pairs(crops, validation) for validation in (False, True))
    clear = crops.part("clear", validation=False)
    assert clear is not None
    scenes = [clear] if wishes.simulate else []
    sampler = Sampler(scenes, own, wishes.crop, wishes.batch, wishes.seed, REAL_SHARE, TRAIN, THINNED)
    if held_out is None:
        held_out = simulated_pairs(_some(crops.part("clear", validation=True), SCORED), TRAIN)
    settings = wishes.settings(len(clear))
    steps = settings["steps"]
    config = TrainConfig(
        network=wishes.network,
        warmup=min(WARMUP, steps // 10),
        device=wishes.device,
        **settings,
    )
    watched = _thinned(held_out, WATCHED)
    drop_unreadable(folder / CHECKPOINT)

    def heard(now: Progress) -> None:
        row = {}
        if now.psnr is not None:
            epoch = wishes.epochs * now.fraction
            row = {"epoch": epoch, "loss": now.loss, "validation PSNR (dB)": now.psnr}
        tell(Moment(now.step, steps, row))

    result = train(
        sampler,
        config,
        folder,
        validation=watched,
        start=wishes.start.tensors if wishes.start else None,
        events=Events(heard, stop),
    )
    if not result.complete:
        return None
    fitted = own or simulated_pairs(_some(clear, FITTED), TRAIN, seed=wishes.seed)
    return _finish(wishes, crops, result, fitted, _thinned(held_out, SCORED), watched)


def _pairs(crops: Crops, validation: bool) -> Pairs | None:
    """Return one part's pairs of layers, None where there is no hazy layer."""
    hazy, clear = (crops.part(role, validation) for role in ("hazy", "clear"))
    if hazy is None or clear is None:
        return None
    return Pairs(hazy, clear, np.arange(len(hazy)), np.zeros(len(hazy), int))


def _some(images: np.ndarray | None, most: int) -> np.ndarray:
    assert images is not None
    return images[:: max(1, -(-len(images) // most))]


def _thinned(pairs: Pairs, most: int) -> Pairs:
    return Pairs(*(_some(getattr(pairs, field.name), most) for field in dataclasses.fields(Pairs)))


def _finish(
    wishes: Wishes, crops: Crops, result: Result, fitted: Pairs, held_out: Pairs, watched: Pairs
) -> Trained:
    """Measure what will be in the file, and describe it."""
    net = as_stored(result.net)
    affine = fit_bands(fitted.hazy, fitted.clear)
    pairs = list(zip(held_out.hazy, held_out.clear, strict=True))
    scores = {
        "input": _capped(evaluate(lambda image: image, pairs)),
        "affine of each band": _capped(evaluate(affine, pairs)),
        "network": _capped(evaluate(functools.partial(restore, net), pairs)),
    }
    figures = {"validation crops of the user's layers": _figures(scores)}
    real = "hazy" in crops.images
    history = [
        {
            "epoch": round(wishes.epochs * row["progress"], 4),
            **{k: row[k] for k in ("loss", "pixels", "fourier", "psnr") if k in row},
        }
        for row in result.rows
    ]
    told = [] if real else ["the haze of all pairs"]
    told += ["the haze of half the crops"] if real and wishes.simulate else []
    card = describe(
        net,
        name="dehazing_own",
        data=[{"source": f"simulated: {what} (simulate.py, TRAIN)", "real": False} for what in told],
        training=result.state,
        command="",
        limits="Trained on a user's own layers and measured on parts of them only.",
        figures=figures,
        gsd=GSD,
        note=f"started from {wishes.start.source}" if wishes.start else "started from random numbers",
    )
    lines = {
        "input": mean_psnr(None, watched),
        "affine of each band": float(
            _capped(evaluate(affine, zip(watched.hazy, watched.clear, strict=True))).psnr.mean()
        ),
    }
    return Trained(
        tensors=net.state_dict(),
        buffers=tuple(dict(net.named_buffers())),
        card=card,
        history=history,
        losses={"loss": "loss", "pixels": "L1 of pixels", "fourier": "L1 of the Fourier transform"},
        scores={"psnr": "PSNR, dB"},
        lines={"psnr": lines},
        summary=_table(scores),
        examples=_examples(net, held_out, scores),
        notes=_notes(real, wishes, len(pairs), len(watched)),
        warnings=_warnings(scores),
    )


def _capped(scores: Scores) -> Scores:
    """Return scores with infinite PSNR, of a pair without haze, cut to what one count of error gives."""
    values = (getattr(scores, field.name) for field in dataclasses.fields(Scores))
    return Scores(*(np.minimum(value, BEST_PSNR) for value in values))


def _figures(scores: Mapping[str, Scores]) -> dict[str, Any]:
    before, affine, after = (scores[name] for name in ("input", "affine of each band", "network"))
    gain, over = interval(after.psnr - before.psnr), interval(after.psnr - affine.psnr)
    found = {
        "crops": len(after),
        "psnr_db": after.psnr.mean(),
        "psnr_db_input": before.psnr.mean(),
        "psnr_db_affine": affine.psnr.mean(),
        "ssim": after.ssim.mean(),
        "ssim_input": before.ssim.mean(),
        "ssim_affine": affine.ssim.mean(),
        "gain_db": gain[0],
        "gain_db_half_interval": gain[1],
        "gain_over_affine_db": over[0],
        "gain_over_affine_db_half_interval": over[1],
    }
    return {name: round(float(value), 4) for name, value in found.items() if np.isfinite(value)}


def _table(scores: Mapping[str, Scores]) -> Sequence[Sequence[Any]]:
    rows: list[Sequence[Any]] = [
        ("", "PSNR, dB", "gain over input, dB", "gain over affine, dB", "SSIM", "PSNR after affine fit, dB")
    ]
    for name, found in scores.items():
        gains = (_gain(found, scores[other]) if other != name else "" for other in list(scores)[:2])
        means = (float(f"{values.mean():.4g}") for values in (found.psnr, found.ssim, found.psnr_fitted))
        psnr, ssim, fitted = means
        rows.append((name, psnr, *gains, ssim, fitted))
    return rows


def _gain(found: Scores, other: Scores) -> str:
    mean, half = interval(found.psnr - other.psnr)
    return f"{mean:+.2f} ± {half:.2f}" if np.isfinite(half) else f"{mean:+.2f}"


def _notes(real: bool, wishes: Wishes, scored: int, watched: int) -> list[str]:
    notes = [
        "PSNR and SSIM are of stretched values in 256 levels, mean over crops. The affine of each band (a "
        "gain and an offset, fitted on the crops that are learned from) is what plain colour correction "
        "reaches. ± is half of the 95 % interval of the paired differences. The last column fits a gain and "
        "an offset to each answer first: it shows structure alone."
    ]
    if not real:
        notes.append("The haze of these crops is simulated with the same ranges as that of the training.")
    elif wishes.simulate:
        notes.append("Validation is on real pairs; half of the crops that are learned from are simulated.")
    if scored != watched:
        notes.append(f"The table is of {scored} crops, the curve of {watched} of them.")
    return notes


def _warnings(scores: Mapping[str, Scores]) -> list[str]:
    """Warn of weights that are not worth their name."""
    after = scores["network"].psnr.mean()
    best = max(("input", "affine of each band"), key=lambda name: scores[name].psnr.mean())
    if after > scores[best].psnr.mean():
        return []
    than = "leaving the layer as it is" if best == "input" else "a plain correction of each band's colour"
    return [
        f"On validation crops the weights reach {after:.1f} dB, no better than {than} "
        f"({scores[best].psnr.mean():.1f} dB): train longer, on more crops, or start from BASE_WEIGHTS."
    ]


def _examples(net: DWTMANet, pairs: Pairs, scores: Mapping[str, Scores]) -> list[Example]:
    """Return crops from the worst gain to the best, evenly in between: no favourites."""
    gain = scores["network"].psnr - scores["input"].psnr
    order = np.argsort(gain, kind="stable")
    chosen = evenly(order)
    words = {int(order[0]): "worst gain, ", int(order[-1]): "best gain, "} if len(order) > 1 else {}
    return [
        Example(
            unit(pairs.hazy[i]),
            restore(net, unit(pairs.hazy[i])),
            unit(pairs.clear[i]),
            f"Before, after, clear: {words.get(int(i), '')}{gain[i]:+.2f} dB",
        )
        for i in chosen
    ]
