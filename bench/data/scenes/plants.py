"""How to draw what grows: mushroom, tree.

Each function adds the parts of n objects to a sketch; proportions, poses and optional parts are
drawn per object. Units: x in about [-0.6, 0.6], y up, base at 0, top at about 1.
"""

from __future__ import annotations

from bench.data.scenes.palette import RGB, mix
from bench.data.scenes.sketch import Sketch


def mushroom(s: Sketch) -> None:
    """A mushroom: stem, gills, a domed cap with or without dots."""
    d = s.draws
    cream = mix(s.flat(0.95, 0.9, 0.8), s.accent, d.unit() * 0.5)
    wide, cap = d.uniform(0.3, 0.48), d.uniform(0.26, 0.5)
    rim = d.uniform(0.4, 0.6)
    foot, neck, bend = d.uniform(0.08, 0.19), d.uniform(0.06, 0.12), d.uniform(-0.08, 0.08)
    s.polygon([(-foot, 0), (foot, 0), (bend + neck, rim + 0.05), (bend - neck, rim + 0.05)], cream)
    s.ellipse(0, 0.03, foot, 0.05, cream)
    s.ellipse(
        bend * 0.5, rim * 0.7, neck * 1.6, 0.04, mix(cream, s.flat(1, 1, 1), 0.4), d.chance(0.4)
    )
    dome = s.ellipse(bend, rim, wide, cap, s.main)
    s.parts.pop()
    s.ellipse(bend, rim, wide * 0.97, 0.075, mix(cream, s.flat(0.3, 0.2, 0.15), 0.35))
    top = s.box(bend, rim + 0.5, 1.0, 0.5, s.main, None, dome)
    s.parts[-1] = type(top)(top.distance, dome.centre, dome.radius, top.colour)
    dotted = d.chance(0.65)
    for at, up in ((-0.55, 0.35), (0.05, 0.65), (0.6, 0.3), (-0.15, 0.2)):
        r = d.uniform(0.035, 0.075)
        s.ellipse(bend + wide * at, rim + cap * up, r * 1.1, r, s.accent, dotted, top)


def tree(s: Sketch) -> None:
    """A tree: a trunk with a round crown, a crown of several clumps, or tiers as a conifer has."""
    d = s.draws
    bark = mix(RGB[8].expand_as(s.main), s.accent, d.unit() * 0.5)
    trunk, slim = d.uniform(0.3, 0.5), d.uniform(0.04, 0.085)
    s.polygon(
        [(-slim * 1.4, 0), (slim * 1.4, 0), (slim * 0.8, trunk + 0.1), (-slim * 0.8, trunk + 0.1)],
        bark,
    )
    kind = d.pick(3)
    round_, clumps, conifer = kind == 0, kind == 1, kind == 2
    branch = d.uniform(0.12, 0.22)
    s.line((0, trunk * 0.75), (branch, trunk + 0.08), 0.025, bark, ~conifer)
    s.line((0, trunk * 0.85), (-branch, trunk + 0.1), 0.025, bark, ~conifer)
    wide, y = d.uniform(0.25, 0.38), trunk + d.uniform(0.2, 0.27)
    dark, light = mix(s.main, s.flat(0, 0.05, 0), 0.25), mix(s.main, s.flat(1, 1, 0.8), 0.18)
    s.ellipse(0, y, wide, d.uniform(0.24, 0.34), s.main, round_)
    s.ellipse(-0.22, y - 0.05, d.uniform(0.14, 0.22), d.uniform(0.13, 0.18), dark, clumps)
    s.ellipse(0.22, y - 0.03, d.uniform(0.14, 0.22), d.uniform(0.13, 0.18), dark, clumps)
    s.ellipse(d.uniform(-0.1, 0.1), y + 0.12, d.uniform(0.18, 0.26), 0.19, s.main, clumps)
    s.ellipse(d.uniform(-0.1, 0.1), y - 0.06, d.uniform(0.16, 0.22), 0.15, light, clumps)
    base, spire = trunk * d.uniform(0.4, 0.8), d.uniform(0.95, 1.08)
    for k, (share, shade) in enumerate(((1.0, dark), (0.76, s.main), (0.5, light))):
        low = base + (spire - base) * 0.27 * k
        s.polygon(
            [(-wide * share, low), (wide * share, low), (0.0, low + (spire - base) * 0.46)],
            shade,
            conifer,
        )
    fruit = d.chance(0.3) & ~conifer
    for at, up in ((-0.12, 0.02), (0.1, 0.1), (0.04, -0.1), (-0.05, 0.17)):
        s.ellipse(at, y + up, 0.032, 0.032, s.accent, fruit)
