"""What a raster run tells of itself: tags in its files, figures for sidecar and report."""

from __future__ import annotations

from typing import Any

from . import provenance
from .events import Track
from .finish import Restored, Written
from .joined import Joined
from .matching import Matched
from .pairs import dates
from .raster_pieces import Counts
from .raster_prepare import Prepared
from .roles import layer_figures
from .versions import kestrel_version


def file_tags(ready: Prepared) -> dict[str, str]:
    """Return what a file should say of its making, for whoever finds it without its sidecar."""
    model = provenance.model(ready.task, ready.job.model)
    params = {name: value for name, value in ready.job.params.items() if value not in (None, "", [])}
    return {
        "KESTREL_MODEL": str(model["id"]),
        "KESTREL_SHA256": str(model["sha256"]),
        "KESTREL_VERSION": kestrel_version(),
        "KESTREL_PARAMETERS": ", ".join(f"{name}={value}" for name, value in sorted(params.items())),
        "KESTREL_STRETCH": ", ".join(f"{s.low:.9g}..{s.high:.9g}" for s in ready.scalings),
    }


def run_figures(
    ready: Prepared, written: Written, counts: Counts, batch: int, track: Track
) -> dict[str, Any]:
    """Return the figures of CONTRACTS.md, section 5, all that JSON can hold."""
    plan, scene, task, finisher = ready.tiled.plan, ready.scene, ready.task, ready.finisher
    total = len(plan.grid)
    stretch = {
        "mode": ready.scalings[0].mode,
        "low": [s.low for s in ready.scalings],
        "high": [s.high for s in ready.scalings],
        "source": ready.scalings[0].source,
    }
    used = {
        **ready.job.params,
        "tile": plan.grid.tile[0] if plan.grid.tile[0] == plan.grid.tile[1] else list(plan.grid.tile),
        "overlap": plan.overlap,
        "batch": batch,
        "bands": list(scene.bands),
        "device": ready.device,
    }
    bands: list[Any] = list(scene.bands)
    if isinstance(scene, Joined):
        bands = list(scene.labels)
        used["bands"] = {layer.role: list(layer.scene.bands) for layer in scene.layers}
    figures: dict[str, Any] = {
        "tiles_total": total,
        "tiles_run": counts.tiles_run,
        "tiles_skipped": total - counts.tiles_run,
        "tiles_nodata": counts.tiles_nodata,
        "valid_pixels": written.valid_pixels,
        "invalid_pixels": written.invalid_pixels,
        "bands": bands,
        "scaling": {**stretch, "dtype": str(scene.dtype)},
        "stretch": stretch,
        "display": {"low": [low for low, _ in ready.display], "high": [high for _, high in ready.display]},
        "size": list(reversed(ready.plan.shape)),
        "model": provenance.model(task, ready.job.model),
        "params_used": used,
        "inputs": provenance.inputs(scene),
        "versions": provenance.versions(),
        "device": ready.device,
        "crs": scene.georef.wkt,
        "pixel_m": scene.georef.pixel_m(scene.width / 2, scene.height / 2),
        "seconds": track.seconds,
    }
    if isinstance(scene, Joined):
        figures["layers"] = layer_figures(scene)
        figures["dates"] = dates(scene, ready.job.params)
        figures["network_grid"] = None if ready.grid is None else ready.grid.figures()
        figures["registration"] = None if scene.registration is None else scene.registration.figures()
        figures["radiometry_matched"] = any(isinstance(each, Matched) for each in ready.scalings)
    if isinstance(finisher, Restored):
        assert written.tally is not None
        figures["valid_pixels"] = written.tally.valid_pixels
        figures["invalid_pixels"] = written.tally.invalid_pixels
        figures["output_bands"] = [position + 1 for position in finisher.positions]
        figures["tally"] = written.tally.figures()
        figures["haze_range"] = [0.0, written.haze_max]
    return figures
