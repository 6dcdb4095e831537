"""Arithmetic between one number or colour per picture and planes of one per pixel."""

from __future__ import annotations

from torch import Tensor


def plane(number: Tensor) -> Tensor:
    """A number per picture `[n]` as `[n, 1, 1]`, ready to meet `[n, h, w]`."""
    return number[:, None, None]


def blend(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """`a` with `share` `[n, h, w]` of `b`; each is colours `[n, 3]` or pictures `[n, 3, h, w]`."""
    a = a[:, :, None, None] if a.ndim == 2 else a
    b = b[:, :, None, None] if b.ndim == 2 else b
    return a + (b - a) * share[:, None]


def coverage(inside: Tensor, pixel: float) -> Tensor:
    """How much of each pixel, of side `pixel`, lies where `inside` is above 0: soft borders."""
    return (inside / pixel + 0.5).clamp(0, 1)
