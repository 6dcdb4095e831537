"""How to draw creatures: bird, cat, fish, person.

Each function adds the parts of n objects to a sketch; proportions, poses and optional parts are
drawn per object. Units: x in about [-0.6, 0.6], y up, base at 0, top at about 1.
"""

from __future__ import annotations

import torch

from bench.data.scenes.palette import mix, tone
from bench.data.scenes.sketch import Sketch


def bird(s: Sketch) -> None:
    """A standing bird in profile: tail, body, wing, head, beak, two legs."""
    d = s.draws
    dark = mix(s.main, s.flat(0, 0, 0), 0.35)
    leg = mix(s.flat(0.9, 0.5, 0.1), s.flat(0.2, 0.15, 0.1), d.unit())
    length, girth, lift = d.uniform(0.26, 0.36), d.uniform(0.17, 0.25), d.uniform(0.12, 0.3)
    middle = lift + girth
    stance = d.uniform(0.04, 0.1)
    for side in (-1.0, 1.0):
        foot = side * stance + d.uniform(-0.03, 0.03)
        s.line((side * 0.06, middle - 0.1), (foot, 0.02), 0.018, leg)
        s.line((foot, 0.02), (foot + 0.08, 0.015), 0.018, leg)
    rise = d.uniform(-0.1, 0.2)
    s.polygon(
        [
            (-0.6 * length, middle + 0.08),
            (-0.6 * length, middle - 0.08),
            (-length - d.uniform(0.12, 0.28), middle + rise - 0.06),
            (-length - d.uniform(0.12, 0.28), middle + rise + 0.06),
        ],
        dark,
    )
    reach, height = length * d.uniform(0.7, 1.0), middle + girth * 0.6 + d.uniform(0.12, 0.3)
    s.line((length * 0.45, middle), (reach, height), d.uniform(0.06, 0.11), s.main)
    body = s.ellipse(0, middle, length, girth, s.main)
    belly = mix(s.main, s.flat(1, 1, 0.95), d.uniform(0.3, 0.8))
    s.ellipse(0.1, middle - girth * 0.7, length, girth * 0.6, belly, d.chance(0.6), body)
    s.ellipse(
        -0.08, middle + 0.03, length * 0.6, girth * d.uniform(0.4, 0.65), s.accent, d.chance(0.75)
    )
    head = d.uniform(0.1, 0.15)
    beak = mix(s.flat(0.98, 0.68, 0.1), s.flat(0.3, 0.2, 0.15), d.unit() * 0.7)
    tip, flat = reach + head + d.uniform(0.08, 0.2), d.uniform(-0.05, 0.02)
    s.polygon(
        [
            (reach + head * 0.6, height + 0.05),
            (reach + head * 0.6, height - 0.06),
            (tip, height + flat),
        ],
        beak,
    )
    s.ellipse(reach, height, head, head * d.uniform(0.9, 1.05), s.main)
    s.ellipse(reach + head * 0.3, height + head * 0.25, 0.035, 0.035, s.flat(0.98, 0.98, 0.95))
    s.ellipse(reach + head * 0.35, height + head * 0.25, 0.022, 0.022, s.flat(0.05, 0.05, 0.05))


def cat(s: Sketch) -> None:
    """A sitting cat from the front: curled tail, body, paws, head with ears, eyes, whiskers."""
    d = s.draws
    dark = mix(s.main, s.flat(0.05, 0.03, 0.03), 0.4)
    light = mix(s.main, s.flat(1, 0.97, 0.92), d.uniform(0.35, 0.8))
    wide, tall = d.uniform(0.2, 0.28), d.uniform(0.24, 0.33)
    lean = d.uniform(-0.08, 0.08)
    swing, curl = wide + d.uniform(0.08, 0.2), d.uniform(0.15, 0.55)
    thick = d.uniform(0.035, 0.05)
    s.line((wide * 0.6, 0.07), (swing, 0.1), thick, dark)
    s.line((swing, 0.1), (swing + d.uniform(-0.04, 0.1), curl), thick, dark)
    body = s.ellipse(0, tall, wide, tall, s.main)
    s.ellipse(0, tall * 0.95, wide * 0.5, tall * 0.75, light, d.chance(0.6), body)
    for side in (-1.0, 1.0):
        s.ellipse(side * wide * 0.5, 0.045, 0.085, 0.05, light)
    head, y = d.uniform(0.19, 0.25), 2 * tall + d.uniform(0.05, 0.13)
    point, spread = head * d.uniform(1.25, 1.6), head * d.uniform(0.7, 0.95)
    for side in (-1.0, 1.0):
        corners = [
            (lean + side * head * 0.15, y + head * 0.75),
            (lean + side * head * 0.95, y + head * 0.2),
            (lean + side * spread, y + point),
        ]
        s.polygon(corners, s.main)
        inner = [
            (0.7 * a + 0.3 * (lean + side * head * 0.7), 0.7 * b + 0.3 * y) for a, b in corners
        ]
        s.polygon(inner, mix(s.main, s.flat(0.95, 0.6, 0.6), 0.6))
    face = s.ellipse(lean, y, head * d.uniform(1.0, 1.15), head * 0.9, s.main)
    stripes = d.chance(0.45)
    for at in (-0.35, 0.0, 0.35):
        s.line(
            (lean + at * head, y + head),
            (lean + at * head, y + head * 0.5),
            0.018,
            dark,
            stripes,
            face,
        )
    s.ellipse(lean, y - head * 0.42, head * 0.5, head * 0.36, light)
    eye = tone(d, torch.where(d.chance(0.5), 2, 3))
    for side in (-1.0, 1.0):
        s.ellipse(lean + side * head * 0.42, y + head * 0.12, head * 0.2, head * 0.2, eye)
        s.ellipse(
            lean + side * head * 0.42,
            y + head * 0.12,
            head * 0.09,
            head * 0.18,
            s.flat(0.04, 0.04, 0.04),
        )
        s.line(
            (lean + side * head * 0.4, y - head * 0.4),
            (lean + side * head * 1.2, y - head * 0.45),
            0.008,
            mix(light, dark, 0.5),
        )
    s.ellipse(lean, y - head * 0.25, head * 0.13, head * 0.09, s.flat(0.75, 0.35, 0.4))


def fish(s: Sketch) -> None:
    """A fish in profile: forked tail, fin on the back, pale belly, eye, stripes or spots."""
    d = s.draws
    length, girth = d.uniform(0.36, 0.5), d.uniform(0.17, 0.29)
    y = girth + d.uniform(0.08, 0.2)
    fin = mix(s.accent, s.main, d.unit() * 0.5)
    fork, root = d.uniform(0.13, 0.26), -length * 0.75
    for side in (-1.0, 1.0):
        s.polygon([(root, y - 0.04), (root, y + 0.04), (-length - 0.2, y + side * fork)], fin)
    back = y + girth * 0.7
    s.polygon(
        [
            (length * d.uniform(0.1, 0.45), back),
            (-length * 0.5, back),
            (-length * d.uniform(0.3, 0.7), back + d.uniform(0.15, 0.28)),
            (-length * d.uniform(-0.1, 0.2), back + d.uniform(0.15, 0.28)),
        ],
        fin,
    )
    s.polygon(
        [(0.0, y - girth * 0.7), (-length * 0.4, y - girth * 0.6), (-length * 0.35, 0.0)],
        fin,
        d.chance(0.7),
    )
    body = s.ellipse(0, y, length, girth, s.main)
    pale = mix(s.main, s.flat(1, 1, 0.95), d.uniform(0.45, 0.85))
    s.ellipse(0.05, y - girth * 0.75, length, girth * 0.65, pale, d.chance(0.85), body)
    striped, step = d.chance(0.5), d.uniform(0.14, 0.2)
    for k in (-1.0, 0.0, 1.0):
        at = -0.08 + k * step
        s.line((at, y + girth), (at, y - girth * 0.3), 0.03, s.accent, striped, body)
    s.polygon(
        [(length * 0.25, y + 0.02), (length * 0.05, y + 0.05), (length * 0.02, y - 0.08)],
        fin,
        ~striped,
    )
    cheek = mix(s.main, s.flat(0, 0, 0), 0.3)
    s.ring(length * 0.5, y, 0.05, girth * 0.6, 0.012, cheek, d.chance(0.5))
    s.line((length * 0.8, y - 0.05), (length * 0.99, y - 0.02), 0.012, s.flat(0.2, 0.08, 0.08))
    eye = d.uniform(0.045, 0.07)
    s.ellipse(length * 0.68, y + girth * 0.22, eye, eye, s.flat(0.98, 0.98, 0.95))
    s.ellipse(length * 0.7, y + girth * 0.22, eye * 0.55, eye * 0.55, s.flat(0.03, 0.03, 0.05))


def person(s: Sketch) -> None:
    """A standing person: legs or a skirt, torso, two posed arms, head with hair or a hat."""
    d = s.draws
    skin = mix(s.flat(0.97, 0.8, 0.66), s.flat(0.36, 0.22, 0.15), d.unit())
    hair = mix(s.flat(0.1, 0.07, 0.06), s.flat(0.85, 0.6, 0.25), d.unit() * d.unit())
    hip, shoulder = d.uniform(0.36, 0.46), d.uniform(0.7, 0.76)
    broad, waist, limb = d.uniform(0.11, 0.17), d.uniform(0.08, 0.14), d.uniform(0.042, 0.06)
    skirt = d.chance(0.35)
    shoe = mix(s.flat(0.12, 0.1, 0.1), s.accent, d.unit() * 0.5)
    step, gait = d.uniform(0.04, 0.17), d.uniform(-0.06, 0.06)
    trousers = torch.where(skirt[:, None], skin, s.accent)
    for side in (-1.0, 1.0):
        foot = side * step + gait
        s.line((side * 0.055, hip), (foot, 0.05), limb, trousers)
        s.ellipse(foot + 0.02, 0.03, 0.075, 0.035, shoe)
    flare = d.uniform(0.16, 0.28)
    s.polygon(
        [(-waist, hip + 0.08), (waist, hip + 0.08), (flare, 0.24), (-flare, 0.24)], s.main, skirt
    )
    for side in (-1.0, 1.0):
        raised = d.chance(0.25)
        elbow = side * (broad + d.uniform(0.04, 0.15))
        drop = torch.where(raised, d.uniform(-0.05, 0.1), d.uniform(-0.2, -0.12))
        hand_x = elbow + side * d.uniform(-0.06, 0.1)
        hand_y = shoulder + drop + torch.where(raised, d.uniform(0.1, 0.2), d.uniform(-0.18, -0.05))
        s.line((side * broad * 0.85, shoulder - 0.03), (elbow, shoulder + drop), limb, s.main)
        s.line((elbow, shoulder + drop), (hand_x, hand_y), limb * 0.8, skin)
    s.polygon([(-broad, shoulder), (broad, shoulder), (waist, hip), (-waist, hip)], s.main)
    s.ellipse(0, shoulder - 0.01, broad, 0.045, s.main)
    s.line((0, shoulder), (0, shoulder + 0.08), 0.04, skin)
    head, y = d.uniform(0.088, 0.12), shoulder + d.uniform(0.13, 0.16)
    long = d.chance(0.4)
    s.ellipse(0, y - 0.02, head * 1.25, head * 1.5, hair, long)
    s.ellipse(0, y + 0.03, head * 1.08, head * 1.05, hair)
    s.ellipse(0, y, head * 0.92, head * 1.02, skin)
    s.ellipse(0, y + head * 0.85, head, head * 0.42, hair)
    for side in (-1.0, 1.0):
        s.ellipse(side * head * 0.38, y, 0.018, 0.022, s.flat(0.08, 0.06, 0.06))
    hat = d.chance(0.3)
    s.box(0, y + head * 0.72, head * 1.5, 0.018, s.accent, hat)
    s.box(0, y + head * 1.05, head * 0.85, head * 0.4, s.accent, hat, None, 0.02)
