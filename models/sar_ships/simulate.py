"""SAR scene simulator: sea clutter, coast and islands, ships, and their label boxes. Seeded, numpy only.

The pictures are simulated and always called so. Amplitude is the square root of calibrated sigma0; columns
run in range, rows in azimuth. What each part is made of stands in clutter.py, coast.py, ships.py, points.py.

Visibility: a ship carries a label when a human could see it, that is when, averaged over its labelled hull,
its power is at least ``MIN_CONTRAST`` times the local clutter's mean and at least ``MIN_SNR`` standard
deviations of that average, the clutter's contrast being that of the K distribution,
CV^2 = 1/L + 1/nu + 1/(L nu). Ships below stay in the picture, without a label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .clutter import fractal_field, gamma_texture, k_clutter, sea_waves
from .coast import Land, coast_points, land_power, make_land, seaward, town_points
from .points import add_ambiguity, add_points
from .ships import (
    Ship,
    apparent_size_px,
    axis,
    draw_size,
    hull_box,
    hull_cover,
    scatterers,
)

MIN_CONTRAST = 2.0  # 3 dB: fainter hulls were not found by eye in trial pictures
MIN_SNR = 6.0  # a 3 px boat in 1-look sea then stands out of its 10 000 neighbours
MIN_PART = 0.25  # share of a box that must lie inside the scene for a ship that crosses the border
CENTRE_REACH = 0.3  # how far outside, in ship lengths, a centre may lie


@dataclass(frozen=True)
class Conditions:
    """The sensor and the sea of one scene; :func:`draw_conditions` draws them.

    ``looks``: speckle looks. ``bandwidth``, ``taper``: impulse response (clutter.psf). ``sea_db``: mean
    sigma0 of the sea at mid range, ``trend_db`` its fall across the swath, ``state_db`` the spread of slow
    changes, ``noise_db`` the noise floor. ``nu``: texture shape. ``swell``: share of swell in the texture,
    with ``wavelength_m`` and ``direction_deg``; ``grain_px``: correlation of the rest. ``land_db``,
    ``land_spread_db``: land; ``town_density``: buildings per hectare in towns; ``coast``: spectral slope.
    ``ship_db``: mean and spread of the hulls' backscatter. ``ambiguity_db``: level of azimuth ghosts (None:
    none). ``arrangement``: how ships lie, ``open``, ``lane``, ``anchorage`` or ``port``.
    """

    looks: int
    bandwidth: float
    taper: float
    sea_db: float
    trend_db: float
    state_db: float
    noise_db: float
    nu: float
    swell: float
    wavelength_m: float
    direction_deg: float
    grain_px: float
    land_db: float
    land_spread_db: float
    town_density: float
    coast: float
    ship_db: tuple[float, float]
    ambiguity_db: float | None
    arrangement: str


@dataclass(frozen=True)
class Scene:
    """A simulated scene.

    ``amplitude``: float32 (H, W), square root of sigma0, > 0. ``boxes``: float32 (N, 4), x1, y1, x2, y2 in
    pixels (pixel edges), clipped to the scene, of the visible ships in the order of ``ships``. ``land``:
    bool (H, W), piers included. ``ships``: all ships, invisible ones too. ``pixel_m``: metres per pixel.
    """

    amplitude: np.ndarray
    boxes: np.ndarray
    land: np.ndarray
    pixel_m: float
    ships: tuple[Ship, ...]
    conditions: Conditions
    seed: int


def draw_conditions(rng: np.random.Generator, pixel_m: float) -> Conditions:
    """Plausible conditions for a pixel size: few looks at fine pixels, four and more for 10-20 m products."""
    fine = pixel_m < 6
    if fine:
        looks = int(rng.choice([1, 1, 1, 2, 3, 4]))
    else:
        looks = int(rng.choice([1, 3, 4, 4, 5, 6]))
    sea_db = float(rng.uniform(-25, -9))
    return Conditions(
        looks=looks,
        bandwidth=float(rng.uniform(0.5, 0.95) if fine else rng.uniform(0.45, 0.75)),
        taper=float(rng.uniform(0.6, 1.0)),
        sea_db=sea_db,
        trend_db=float(rng.uniform(0, 4)),
        state_db=float(rng.uniform(0, 1.8)),
        noise_db=float(rng.uniform(-32, -22)),
        nu=float(np.exp(rng.uniform(np.log(2.5), np.log(60)))),
        swell=float(0.5 * rng.random() ** 3),  # visible swell is the exception
        wavelength_m=float(rng.uniform(60, 350)),
        direction_deg=float(rng.uniform(0, 360)),
        grain_px=float(rng.uniform(0.3, 3)),
        land_db=float(max(rng.uniform(-14, -3), sea_db - 1)),
        land_spread_db=float(rng.uniform(1, 3)),
        town_density=float(rng.choice([0.0, 1.0, 5.0, 20.0, 40.0])),
        coast=float(rng.uniform(1.4, 2.2)),
        ship_db=(float(rng.uniform(0, 8)), float(rng.uniform(2, 5))),
        ambiguity_db=float(rng.uniform(-32, -24)) if rng.random() < 0.2 else None,
        arrangement=str(rng.choice(["open", "open", "lane", "anchorage", "port", "port"])),
    )


def simulate_scene(
    seed: int,
    height: int,
    width: int,
    pixel_m: float,
    *,
    ships: int | None = None,
    land: float | None = None,
    conditions: Conditions | None = None,
) -> Scene:
    """Simulate one scene; the same arguments give the same bytes.

    ``ships``: how many to place (fewer where there is no room); None draws 4 to 40 per 1024 x 1024 px.
    ``land``: share of the scene, 0..0.95; None draws, with no land in two of five scenes. ``conditions``:
    None draws them. Raises ValueError for a size under 32 px or a pixel size outside 0.3..40 m.
    """
    if height < 32 or width < 32 or not 0.3 <= pixel_m <= 40:
        raise ValueError(f"A scene of {height} x {width} px at {pixel_m} m cannot be simulated")
    rng = np.random.default_rng(seed)
    drawn = draw_conditions(rng, pixel_m)
    chosen = drawn if conditions is None else conditions
    drawn_share = 0.0 if rng.random() < 0.4 else float(rng.uniform(0.05, 0.75))
    share = drawn_share if land is None else land
    piers = int(rng.integers(2, 12)) if chosen.arrangement == "port" or rng.random() < 0.3 else 0
    ground = make_land(rng, height, width, pixel_m, share, piers=piers, rough=chosen.coast)

    mean, texture = background(rng, ground, pixel_m, chosen)
    typical = rng.integers(4, 41) * height * width / 1024**2
    count = max(1, round(typical)) if ships is None else ships
    fleet = place_ships(rng, ground, pixel_m, chosen, count)
    fleet, fields, mean, texture = render_ships(rng, fleet, ground, mean, texture, pixel_m, chosen)

    power = k_clutter(rng, mean, texture, chosen.looks, chosen.bandwidth, chosen.taper, fields)
    boxes = [clip_box(hull_box(ship, pixel_m), height, width) for ship in fleet if ship.visible]
    return Scene(
        amplitude=np.sqrt(np.maximum(power, 1e-8)),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        land=ground.mask,
        pixel_m=float(pixel_m),
        ships=tuple(fleet),
        conditions=chosen,
        seed=seed,
    )


def background(
    rng: np.random.Generator, ground: Land, pixel_m: float, conditions: Conditions
) -> tuple[np.ndarray, np.ndarray]:
    """Mean power (sigma0 plus noise floor) and texture of sea and land without ships, float32 (H, W) each."""
    height, width = ground.mask.shape
    slope = np.linspace(0.5, -0.5, width, dtype=np.float32)[None, :] * np.float32(conditions.trend_db)
    sea_db = np.float32(conditions.sea_db) + slope + np.zeros((height, 1), np.float32)
    if conditions.state_db > 0:
        state = fractal_field(rng, height, width, 1.6, step=8)
        slicks = np.clip(state - np.float32(1.6), 0, 0.5) * -8  # oil and calm water: darker patches
        sea_db = sea_db + np.float32(conditions.state_db) * state + slicks
    mean = np.power(np.float32(10), sea_db / 10)
    waves = sea_waves(
        rng,
        height,
        width,
        pixel_m,
        wavelength_m=conditions.wavelength_m,
        direction_deg=conditions.direction_deg,
        swell=conditions.swell,
        grain_px=conditions.grain_px,
    )
    texture = gamma_texture(waves, conditions.nu)
    if ground.mask.any():
        surface = land_power(rng, ground, pixel_m, conditions.land_db, conditions.land_spread_db)
        mean = np.where(ground.mask, surface, mean)
        rough = gamma_texture(
            rng.standard_normal((height, width), dtype=np.float32), float(rng.uniform(1.5, 6))
        )
        texture = np.where(ground.mask, rough, texture)
    return mean + np.float32(10 ** (conditions.noise_db / 10)), texture.astype(np.float32)


def place_ships(
    rng: np.random.Generator, ground: Land, pixel_m: float, conditions: Conditions, count: int
) -> list[Ship]:
    """Choose ships and their places: never on land, never overlapping, some across the scene's border."""
    height, width = ground.mask.shape
    taken = ground.mask.copy()
    fleet: list[Ship] = []
    lane = rng.uniform(0, 360)
    ports = list(ground.piers)
    shore = coast_points(rng, ground.mask, 4 * count) if ground.mask.any() else []
    anchor = (rng.uniform(0, height), rng.uniform(0, width))
    spread = min(rng.uniform(150, 1500) / pixel_m, 0.4 * min(height, width))
    usual = str(rng.choice(["cargo", "barge", "boat", "tanker"]))
    for _ in range(14 * count):
        if len(fleet) >= count:
            break
        kind = str(
            rng.choice(["boat", "cargo", "container", "tanker", "barge"], p=[0.3, 0.33, 0.12, 0.15, 0.1])
        )
        heading = float(rng.uniform(0, 360))
        row, col = rng.uniform(-5, height + 5), rng.uniform(-5, width + 5)
        how = conditions.arrangement if rng.random() < 0.75 else "open"
        if how == "lane":
            heading = float((lane + rng.normal(0, 6) + 180 * (rng.random() < 0.5)) % 360)
        elif how == "anchorage":
            kind = usual if rng.random() < 0.8 else kind
            heading = float((lane + rng.normal(0, 10)) % 360)
            row, col = anchor[0] + spread * rng.normal(), anchor[1] + spread * rng.normal()
        length, beam = draw_size(rng, kind, shortest_m=max(12.0, 2 * pixel_m))
        if how == "port" and (ports or shore):
            row, col, heading = berth(rng, ground, ports, shore, beam / pixel_m)
        level = float(rng.normal(*conditions.ship_db)) + (4.0 if kind == "boat" else 0.0)
        ship = Ship(float(row), float(col), length, beam, heading, kind, power_db=min(level, 16.0))
        if fits(taken, ship, pixel_m):
            fleet.append(ship)
    return fleet


def berth(
    rng: np.random.Generator, ground: Land, ports: list, shore: list[tuple[int, int]], beam_px: float
) -> tuple[float, float, float]:
    """Row, column and heading of a ship moored along a pier or the natural shore."""
    gap = max(beam_px / 2, 1.5) + rng.uniform(1.2, 3.5)
    if ports and (not shore or rng.random() < 0.7):
        pier = ports[int(rng.integers(len(ports)))]
        side = 1.0 if rng.random() < 0.5 else -1.0
        along, across = rng.uniform(0.1, 1.0) * pier.length_px, side * (pier.width_px / 2 + gap)
        row = pier.row + along * pier.down - across * pier.right
        col = pier.col + along * pier.right + across * pier.down
        down, right = pier.down, pier.right
    else:
        r, c = shore[int(rng.integers(len(shore)))]
        out_down, out_right = seaward(ground.relief, r, c)
        gap += rng.exponential(6.0)
        row, col = r + gap * out_down, c + gap * out_right
        down, right = -out_right, out_down
    heading = np.rad2deg(np.arctan2(right, -down)) + 180 * (rng.random() < 0.5) + rng.normal(0, 2)
    return float(row), float(col), float(heading % 360)


def fits(taken: np.ndarray, ship: Ship, pixel_m: float) -> bool:
    """Whether the labelled hull lies on free water; if so its pixels become taken, in place."""
    height, width = taken.shape
    if not (
        -CENTRE_REACH * ship.length_m / pixel_m <= ship.row <= height + CENTRE_REACH * ship.length_m / pixel_m
        and -CENTRE_REACH * ship.length_m / pixel_m
        <= ship.col
        <= width + CENTRE_REACH * ship.length_m / pixel_m
    ):
        return False
    length, beam = apparent_size_px(ship, pixel_m)
    along = np.linspace(-length / 2, length / 2, int(2 * length) + 2)[:, None]
    across = np.linspace(-beam / 2, beam / 2, int(2 * beam) + 2)[None, :]
    dy, dx = axis(ship.heading_deg)
    rows = np.floor(ship.row + along * dy - across * dx).astype(np.intp).ravel()
    cols = np.floor(ship.col + along * dx + across * dy).astype(np.intp).ravel()
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    rows, cols = rows[inside], cols[inside]
    if len(rows) == 0 or taken[rows, cols].any():
        return False
    box = hull_box(ship, pixel_m)
    part = clip_box(box, height, width)
    if area(part) < MIN_PART * area(box):
        return False
    taken[rows, cols] = True
    return True


def clip_box(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part of a box inside the scene."""
    return np.clip(box, 0, np.array([width, height, width, height], dtype=np.float32)).astype(np.float32)


def area(box: np.ndarray) -> float:
    """Area of a box in square pixels, 0 when it is empty."""
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def clutter_contrast(looks: float, nu: float) -> float:
    """Standard deviation over mean of K-distributed intensity: sqrt(1/L + 1/nu + 1/(L nu))."""
    return float(np.sqrt(1 / looks + 1 / nu + 1 / (looks * nu)))


def judge(ship: Ship, hull_px: float, clutter: float, pixel_m: float, conditions: Conditions) -> Ship:
    """Fill in contrast, detection statistic and visibility of a ship whose hull covers ``hull_px`` pixels."""
    length, beam = apparent_size_px(ship, pixel_m)
    contrast = 10 ** (ship.power_db / 10) * min(hull_px / (length * beam), 1.0) / clutter
    cells = max(length * beam * conditions.bandwidth**2, 1.0)
    snr = contrast * np.sqrt(cells) / clutter_contrast(conditions.looks, conditions.nu)
    visible = contrast >= MIN_CONTRAST and snr >= MIN_SNR
    return replace(
        ship, snr=float(snr), contrast_db=float(10 * np.log10(max(contrast, 1e-9))), visible=bool(visible)
    )


def render_ships(
    rng: np.random.Generator,
    fleet: list[Ship],
    ground: Land,
    mean: np.ndarray,
    texture: np.ndarray,
    pixel_m: float,
    conditions: Conditions,
) -> tuple[list[Ship], list[np.ndarray], np.ndarray, np.ndarray]:
    """Draw hulls into the mean power, wakes into the texture, scatterers and towns into coherent fields."""
    height, width = mean.shape
    fields = [np.zeros((height, width), np.complex64) for _ in range(min(conditions.looks, 3))]
    mean, texture = mean.copy(), texture.copy()
    points = [town_points(rng, ground, pixel_m, conditions.town_density)]
    judged = []
    for ship in fleet:
        cover = hull_cover(ship, pixel_m, height, width)
        if cover is None:
            continue
        rows, cols, share = cover
        water = ~ground.mask[rows, cols] & (share == 0)
        clutter = float(np.median(mean[rows, cols][water])) if water.any() else float(mean[rows, cols].mean())
        hull_px = max(ship.length_m * ship.beam_m * 0.9 / pixel_m**2, 0.25)  # 0.9: pointed bow
        judged.append(judge(ship, hull_px, clutter, pixel_m, conditions))
        level = 10 ** (ship.power_db / 10)
        diffuse = rng.uniform(0.15, 0.5)
        if rng.random() < 0.15 and ship.kind != "barge":
            add_wake(rng, texture, ship, pixel_m, ground.mask)
        texture[rows, cols] = np.where(share > 0.5, rng.exponential(1.0, share.shape), texture[rows, cols])
        mean[rows, cols] += (diffuse * level * share).astype(np.float32)
        r, c, relative = scatterers(rng, ship, pixel_m)
        points.append((r, c, relative * (1 - diffuse) * level * hull_px))
    sea = float(np.median(mean))
    at_row, at_col, power = (np.concatenate(part) for part in zip(*points, strict=True))
    # a sinc sidelobe 10 px out lies 30 dB below its peak: arms matter from 25 dB over the sea on
    add_points(
        fields,
        rng,
        at_row,
        at_col,
        power,
        conditions.bandwidth,
        conditions.taper,
        arm_power=300 * sea,
        arm_px=int(rng.integers(12, 48)),
    )
    if conditions.ambiguity_db is not None:
        add_ambiguity(fields, int(rng.uniform(0.15, 0.6) * height), conditions.ambiguity_db)
    return judged, fields, mean, texture


def add_wake(
    rng: np.random.Generator, texture: np.ndarray, ship: Ship, pixel_m: float, land: np.ndarray
) -> None:
    """Dark turbulent wake behind the stern, with one bright arm at up to 20 degrees, in place."""
    height, width = texture.shape
    dy, dx = axis(ship.heading_deg)
    long = int(rng.uniform(2, 8) * ship.length_m / pixel_m)
    start = ship.length_m / (2 * pixel_m)
    for angle, gain, wide in (
        (0.0, rng.uniform(0.3, 0.7), max(ship.beam_m * 1.3 / pixel_m, 1.5)),
        (rng.uniform(-20, 20), rng.uniform(1.3, 2.2), 1.5),
    ):
        turn = np.deg2rad(angle)
        down, right = dy * np.cos(turn) + dx * np.sin(turn), dx * np.cos(turn) - dy * np.sin(turn)
        along = (start + np.arange(0, long, 0.5))[:, None]
        across = np.arange(-wide / 2, wide / 2 + 0.5, 0.5)[None, :]
        rows = np.floor(ship.row - along * down - across * right).astype(np.intp)
        cols = np.floor(ship.col - along * right + across * down).astype(np.intp)
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        fade = np.exp(-np.linspace(0, 2, along.shape[0]))[:, None] + np.zeros_like(across)
        factor = 1 + (gain - 1) * fade[inside]
        hit = np.unique(rows[inside] * width + cols[inside], return_index=True)
        flat, value = hit[0], factor[hit[1]].astype(np.float32)
        water = ~land.ravel()[flat]
        texture.ravel()[flat[water]] *= value[water]
