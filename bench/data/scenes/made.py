"""How to draw what is made: boat, car, chair, house, lamp, mug.

Each function adds the parts of n objects to a sketch; proportions, models and optional parts are
drawn per object. Units: x in about [-0.6, 0.6], y up, base at 0, top at about 1.
"""

from __future__ import annotations

import torch

from bench.data.scenes.palette import RGB, mix
from bench.data.scenes.sketch import Sketch


def boat(s: Sketch) -> None:
    """A boat: a hull under one or two sails, or under a cabin with a funnel."""
    d = s.draws
    keel, deck, depth = d.uniform(0.2, 0.36), d.uniform(0.4, 0.55), d.uniform(0.16, 0.26)
    sail = d.chance(0.65)
    wood = mix(RGB[8].expand_as(s.main), s.flat(0.9, 0.8, 0.6), d.unit())
    top, mast = d.uniform(0.85, 1.05), d.uniform(-0.08, 0.12)
    s.line((mast, depth), (mast, top), 0.02, wood, sail)
    cloth = torch.where(d.chance(0.6)[:, None], mix(s.accent, s.flat(1, 1, 1), 0.4), s.accent)
    foot = depth + d.uniform(0.05, 0.12)
    main_sail = s.polygon(
        [(mast - 0.03, top - 0.03), (mast - 0.03, foot), (mast - d.uniform(0.28, 0.42), foot)],
        cloth,
        sail,
    )
    s.box(
        mast - 0.2, foot + d.uniform(0.15, 0.3), 0.4, 0.04, s.main, sail & d.chance(0.4), main_sail
    )
    s.polygon(
        [
            (mast + 0.03, top - d.uniform(0.08, 0.25)),
            (mast + 0.03, foot),
            (mast + d.uniform(0.2, 0.34), foot),
        ],
        mix(cloth, s.flat(0.2, 0.2, 0.3), 0.15),
        sail & d.chance(0.7),
    )
    s.polygon(
        [(mast, top + 0.05), (mast, top - 0.03), (mast + 0.13, top + 0.01)],
        s.main,
        sail & d.chance(0.5),
    )
    house, roof = d.uniform(0.16, 0.26), depth + d.uniform(0.2, 0.3)
    back = d.uniform(-0.15, 0.02)
    s.box(
        back - 0.02,
        roof + 0.1,
        0.06,
        0.16,
        mix(s.main, s.flat(0, 0, 0), 0.2),
        ~sail & d.chance(0.75),
    )
    s.box(back, roof / 2 + depth / 2, house, (roof - depth) / 2 + 0.02, s.accent, ~sail)
    for at in (-0.55, 0.0, 0.55):
        s.ellipse(back + at * house, (roof + depth) / 2, 0.035, 0.04, s.flat(0.2, 0.3, 0.4), ~sail)
    bow = d.uniform(0.0, 0.08)
    hull = s.polygon([(-keel, 0), (keel, 0), (deck + 0.05, depth + bow), (-deck, depth)], s.main)
    trim = mix(s.main, s.flat(1, 1, 1), 0.55)
    s.box(0, depth * 0.95, 0.7, 0.03, trim, d.chance(0.6), hull)
    s.box(0, 0.0, 0.7, depth * 0.3, mix(s.main, s.flat(0.1, 0, 0), 0.5), d.chance(0.5), hull)


def car(s: Sketch) -> None:
    """A car from the side: body, cabin (saloon, hatchback or van), windows, wheels, lights."""
    d = s.draws
    half, floor, waist = d.uniform(0.46, 0.6), d.uniform(0.1, 0.15), d.uniform(0.3, 0.38)
    roof = waist + d.uniform(0.17, 0.27)
    van = d.chance(0.25)
    front = d.uniform(0.05, 0.25)
    rear = torch.where(van, -half + 0.03, d.uniform(-0.35, -0.2))
    slope, lean = d.uniform(0.1, 0.22), torch.where(van, 0.03, d.uniform(0.05, 0.18))
    cabin = [
        (rear - lean * (~van), waist - 0.03),
        (front + slope, waist - 0.03),
        (front, roof),
        (rear + 0.05, roof),
    ]
    s.polygon(cabin, s.main)
    glass = mix(s.flat(0.65, 0.8, 0.9), s.flat(0.15, 0.2, 0.28), d.unit())
    pillar = (front + rear) / 2
    s.polygon(
        [
            (pillar + 0.02, waist),
            (front + slope * 0.8, waist),
            (front - 0.01, roof - 0.04),
            (pillar + 0.02, roof - 0.04),
        ],
        glass,
    )
    s.polygon(
        [
            (rear - (lean - 0.05) * (~van), waist),
            (pillar - 0.02, waist),
            (pillar - 0.02, roof - 0.04),
            (rear + 0.07, roof - 0.04),
        ],
        glass,
        ~van | d.chance(0.4),
    )
    body = s.box(
        0, (waist + floor) / 2, half, (waist - floor) / 2, s.main, None, None, d.uniform(0.04, 0.1)
    )
    s.box(0, (waist + floor) / 2, 0.7, 0.025, s.accent, d.chance(0.4), body)
    s.line((pillar, waist - 0.02), (pillar, floor + 0.05), 0.006, mix(s.main, s.flat(0, 0, 0), 0.5))
    s.ellipse(half - 0.03, waist - 0.08, 0.045, 0.04, s.flat(1.0, 0.95, 0.7))
    s.box(-half + 0.02, waist - 0.08, 0.03, 0.035, s.flat(0.85, 0.1, 0.1))
    s.box(0, floor + 0.01, half, 0.02, s.flat(0.2, 0.2, 0.22))
    wheel, base = d.uniform(0.1, 0.145), half * d.uniform(0.55, 0.68)
    hub = mix(s.flat(0.85, 0.85, 0.87), s.accent, d.unit() * 0.5)
    for side in (-1.0, 1.0):
        s.ellipse(side * base, wheel, wheel, wheel, s.flat(0.09, 0.09, 0.1))
        s.ellipse(side * base, wheel, wheel * 0.5, wheel * 0.5, hub)
    s.box(pillar, roof + 0.02, 0.16, 0.02, s.accent, d.chance(0.2))


def chair(s: Sketch) -> None:
    """A chair seen from a corner: four legs, seat, back of slats, bars or one panel."""
    d = s.draws
    seat, half, skew = d.uniform(0.36, 0.48), d.uniform(0.2, 0.29), d.uniform(0.06, 0.16)
    rise, thick, leg = d.uniform(0.07, 0.14), d.uniform(0.025, 0.045), d.uniform(0.022, 0.04)
    dark = mix(s.main, s.flat(0.05, 0.03, 0.02), 0.35)
    splay, top = d.uniform(0.0, 0.06), d.uniform(0.85, 1.02)
    for x in (-half + skew, half + skew):
        s.line((x, seat + rise), (x * 1.05, rise), leg, dark)
    lean = d.uniform(0.0, 0.08)
    left, right = skew - half, skew + half
    kind = d.pick(3)
    fill = torch.where(d.chance(0.5)[:, None], s.accent, s.main)
    s.polygon(
        [
            (left, seat + rise + 0.06),
            (right, seat + rise + 0.06),
            (right + lean, top),
            (left + lean, top),
        ],
        fill,
        kind == 0,
    )
    for share in (0.25, 0.5, 0.75):
        x = left + (right - left) * share
        s.line((x, seat + rise), (x + lean, top - 0.02), leg * 0.6, s.main, kind == 1)
    for share in (0.35, 0.68):
        y = seat + rise + (top - seat - rise) * share
        s.line((left + lean * share, y), (right + lean * share, y), leg * 1.1, fill, kind == 2)
    for x in (left, right):
        s.line((x, seat + rise), (x + lean, top), leg, s.main)
    s.line((left + lean, top), (right + lean, top), leg * 1.2, s.main)
    s.polygon([(-half, seat), (half, seat), (right, seat + rise), (left, seat + rise)], s.main)
    s.ellipse(skew / 2, seat + rise * 0.6, half * 0.8, rise * 0.5, s.accent, d.chance(0.4))
    s.box(0, seat - thick * 0.5, half + 0.01, thick, dark)
    for side in (-1.0, 1.0):
        s.line(
            (side * (half - 0.02), seat - thick), (side * (half - 0.02 + splay), 0.02), leg, s.main
        )
    s.line((-half, seat * 0.45), (half, seat * 0.45), leg * 0.6, dark, d.chance(0.4))


def house(s: Sketch) -> None:
    """A house: walls, gabled or hipped roof, chimney, door, windows."""
    d = s.draws
    half, wall = d.uniform(0.28, 0.45), d.uniform(0.36, 0.56)
    peak, eaves = wall + d.uniform(0.24, 0.42), half + d.uniform(0.03, 0.09)
    ridge = torch.where(d.chance(0.5), 0.02, half * d.uniform(0.3, 0.7))
    brick = mix(s.flat(0.5, 0.2, 0.15), s.accent, d.unit() * 0.4)
    at = half * d.uniform(0.35, 0.6)
    s.box(at, wall + (peak - wall) * 0.65, 0.05, (peak - wall) * 0.45, brick, d.chance(0.7))
    body = s.box(0, wall / 2, half, wall / 2, s.main)
    s.box(0, 0, half, 0.05, mix(s.main, s.flat(0, 0, 0), 0.4), d.chance(0.5), body)
    s.polygon([(-eaves, wall), (eaves, wall), (ridge, peak), (-ridge, peak)], s.accent)
    s.box(0, wall, eaves, 0.018, mix(s.accent, s.flat(0, 0, 0), 0.4))
    door = d.uniform(-0.6, 0.6) * half
    tall, wood = d.uniform(0.13, 0.19), mix(s.flat(0.3, 0.17, 0.1), s.accent, d.unit() * 0.6)
    s.box(door, tall / 1.1, 0.065, tall / 1.1, wood)
    glass = mix(s.flat(0.55, 0.75, 0.9), s.flat(1.0, 0.85, 0.4), d.unit())
    frame = mix(s.flat(0.97, 0.97, 0.95), wood, d.unit() * 0.6)
    y, size = wall * d.uniform(0.55, 0.72), d.uniform(0.05, 0.08)
    for side in (-1.0, 1.0):
        x = torch.where(door * side > 0.1, door - side * 0.2, side * half * 0.6)
        there = (x - door).abs() > 0.14
        s.box(x, y, size + 0.018, size + 0.018, frame, there)
        s.box(x, y, size, size, glass, there)
        s.line((x, y - size), (x, y + size), 0.008, frame, there)
    s.ellipse(0, wall + (peak - wall) * 0.4, 0.055, 0.055, glass, d.chance(0.45))


def lamp(s: Sketch) -> None:
    """A lamp: a foot, a thin or bulging stand, a shade that glows at its lower rim."""
    d = s.draws
    rim, crown = d.uniform(0.22, 0.38), d.uniform(0.08, 0.24)
    low, top = d.uniform(0.5, 0.66), d.uniform(0.88, 1.02)
    metal = torch.where(
        d.chance(0.5)[:, None], s.accent, mix(s.accent, s.flat(0.25, 0.2, 0.15), 0.6)
    )
    foot = d.uniform(0.13, 0.25)
    s.line((0, 0.04), (0, low + 0.1), d.uniform(0.016, 0.035), metal)
    bulge = d.chance(0.5)
    s.ellipse(0, low * d.uniform(0.35, 0.55), d.uniform(0.08, 0.17), low * 0.32, metal, bulge)
    s.ellipse(0, 0.035, foot, 0.04, mix(metal, s.flat(0, 0, 0), 0.2))
    glow = mix(s.flat(1.0, 0.95, 0.7), s.main, 0.15)
    s.ellipse(0, low - 0.01, 0.055, 0.075, glow, d.chance(0.6))
    shade = s.polygon([(-rim, low), (rim, low), (crown, top), (-crown, top)], s.main)
    s.ellipse(0, low, rim * 1.1, (top - low) * 0.75, mix(s.main, glow, 0.5), d.chance(0.5), shade)
    trim = d.chance(0.5)
    s.box(0, low + 0.03, 0.6, 0.022, s.accent, trim, shade)
    s.box(0, top - 0.02, 0.6, 0.018, s.accent, trim, shade)
    s.ellipse(0, top, crown, 0.025, mix(s.main, s.flat(1, 1, 0.9), 0.4))
    pull = rim * d.uniform(0.4, 0.7)
    s.line((pull, low), (pull, low - 0.14), 0.01, metal, d.chance(0.4))


def mug(s: Sketch) -> None:
    """A mug: a tapering body with a handle, dark drink inside the rim, a band or dot, steam."""
    d = s.draws
    rim, foot, tall = d.uniform(0.24, 0.36), d.uniform(0.2, 0.34), d.uniform(0.52, 0.78)
    lip = d.uniform(0.05, 0.1)
    grip, thick = d.uniform(0.13, 0.21), d.uniform(0.03, 0.05)
    handle = torch.where(d.chance(0.25)[:, None], s.accent, s.main)
    s.ring(
        (rim + foot) / 2,
        tall * d.uniform(0.5, 0.58),
        grip,
        tall * d.uniform(0.22, 0.3),
        thick,
        handle,
    )
    body = s.polygon([(-foot, 0.03), (foot, 0.03), (rim, tall), (-rim, tall)], s.main)
    s.ellipse(0, 0.03, foot, lip * 0.6, s.main)
    style = d.pick(4)
    y = tall * d.uniform(0.35, 0.55)
    s.box(0, y, 0.6, d.uniform(0.04, 0.1), s.accent, style == 0, body)
    for at in (-0.5, 0.0, 0.5):
        s.ellipse(at * rim, y + abs(at) * 0.1, 0.05, 0.05, s.accent, style == 1, body)
    s.ellipse(0, y, 0.13, 0.12, s.accent, style == 2, body)
    s.ellipse(0, tall, rim, lip, mix(s.main, s.flat(1, 1, 1), 0.35))
    drink = mix(s.flat(0.22, 0.12, 0.07), s.flat(0.75, 0.45, 0.2), d.unit())
    s.ellipse(0, tall - lip * 0.12, rim * 0.84, lip * 0.72, drink)
    steam = d.chance(0.35)
    vapour = s.flat(0.95, 0.95, 0.97)
    for at in (-0.1, 0.08):
        s.line((at, tall + 0.08), (at + 0.05, tall + 0.17), 0.014, vapour, steam)
        s.line((at + 0.05, tall + 0.17), (at, tall + 0.26), 0.014, vapour, steam)
