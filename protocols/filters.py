"""Filters: the first convolution as pictures, and how many of its filters are of any use."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.data.views import eval_view
from bench.errors import BenchError
from bench.eval.figures import grid
from bench.rng import generator
from bench.spread import effective_rank

SHOWN = 256  # filters, at most, in the figure
FFT = 32  # the grid of frequencies that filters are measured on


class Filters(Protocol):
    """Share of the first layer's filters that are neither dead nor a copy of another.

    The first convolution (or patch embedding) that a picture meets, with a batch norm right after
    it folded in, w gamma / sqrt(var + eps), as RotNet's authors show theirs (arXiv:1803.07728).
    Needs no pictures and no labels. It tells of a broken training, not of a good one: random
    filters are all distinct. How training has changed them shows in `mean_frequency` (cycles per
    pixel, weighted by energy; noise has 0.38) and `color_energy` (the share that grey pictures do
    not excite; noise has 67 %).
    """

    metric = Metric("distinct_filters")
    requires = frozenset()  # it looks at weights: no picture, so no test split either

    class Config(Protocol.Config):
        """The constants."""

        dead: PositiveFloat = 0.01  # of the median norm: smaller filters are dead
        same: float = Field(0.95, gt=0, lt=1)  # |cosine| from which two filters are copies

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder`; of `data` only the pictures' size is used, and nothing is random.

        Raises:
            BenchError: the encoder has no convolution, or its weights are not finite.
        """
        bank = first_filters(encoder, eval_view(data.info).size or data.info.size, data)
        rows = bank.flatten(1)
        norm = rows.norm(dim=1)
        alive = norm > cfg.dead * norm.median()
        rows = normalize(rows[alive])
        cosine = (rows @ rows.T).abs().fill_diagonal_(0.0)
        distinct = _distinct(cosine, cfg.same)
        order = frequency(bank).argsort(stable=True)
        pairs = max(1, len(rows) * (len(rows) - 1))
        metrics = {
            "distinct_filters": 100 * distinct / len(bank),
            "dead_filters": 100 * (~alive).double().mean().item(),
            "effective_rank": effective_rank(rows) if len(rows) else 0.0,
            "mean_abs_cosine": float(cosine.sum()) / pairs,
            "mean_frequency": float(frequency(bank)[alive].mean()) if len(rows) else 0.0,
            "color_energy": 100 * color_energy(bank),
        }
        shape = " x ".join(str(side) for side in bank.shape[1:])
        return Scores(
            metrics=metrics,
            selected={"filters": len(bank), "shape": list(bank.shape[1:])},
            figure=grid(
                as_pictures(bank[order[_evenly(len(bank), SHOWN)]]),
                f"{len(bank)} filters of {shape}, from low to high frequency",
                note=f"{metrics['distinct_filters']:.0f} % distinct, {metrics['dead_filters']:.0f} "
                f"% dead · effective rank {metrics['effective_rank']:.1f} of {rows.shape[1]} · "
                f"mean |cosine| {metrics['mean_abs_cosine']:.2f} · {metrics['mean_frequency']:.2f} "
                f"cycles per pixel · {metrics['color_energy']:.0f} % colour",
            ),
        )


def first_filters(encoder: Encoder, size: int, data: EvalData) -> Tensor:
    """The weights `[K, C, h, w]`, float64, of the first convolution, its batch norm folded in.

    What comes first is told by a forward pass on a picture of `size` pixels. Where the convolution
    is given the same channel three times (grey pictures), the three are summed into one.

    Raises:
        BenchError: the encoder has no convolution, or its weights are not finite.
    """
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((module, inputs[0], output))

    layers = [m for m in encoder.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    hooks = [module.register_forward_hook(note) for module in layers]
    try:
        noise = torch.randn(1, 3, size, size, generator=generator("filters"))
        with torch.no_grad():
            encoder(noise.to(data.train.device))
    finally:
        for hook in hooks:
            hook.remove()
    first = next((i for i, call in enumerate(calls) if isinstance(call[0], nn.Conv2d)), None)
    if first is None:
        raise BenchError(
            "this encoder has no convolution, hence no filters to show; "
            "choose a method with a convolutional backbone or a vision transformer"
        )
    conv, seen, output = calls[first]
    weight: Tensor = conv.weight.detach().cpu().double()  # type: ignore[operator]
    for module, inputs, _ in calls[first + 1 :]:
        # An in-place activation in between would be the same tensor; none comes before a norm.
        if isinstance(module, nn.BatchNorm2d) and inputs is output:
            weight = weight * _scale(module)[:, None, None, None]
    if not weight.isfinite().all():
        raise BenchError(
            "the first convolution holds NaN or infinity; "
            "its training has diverged: lower the learning rate"
        )
    grey = seen.shape[1] == weight.shape[1] > 1 and bool((seen == seen[:, :1]).all())
    return weight.sum(1, keepdim=True) if grey else weight


def frequency(bank: Tensor) -> Tensor:
    """The mean radial frequency of each filter of `[K, C, h, w]`, cycles per pixel, `[K]`.

    Weighted by energy, over a spectrum of 32 x 32 (more where filters are larger).
    """
    side = max(FFT, *bank.shape[2:])
    power = torch.fft.fft2(bank, s=(side, side)).abs().square().sum(1)
    axis = torch.fft.fftfreq(side, dtype=bank.dtype)
    radius = (axis[:, None].square() + axis.square()).sqrt()
    energy = power.sum((1, 2)).clamp_min(torch.finfo(bank.dtype).tiny)
    mean: Tensor = (power * radius).sum((1, 2)) / energy
    return mean


def color_energy(bank: Tensor) -> float:
    """The share of the energy of `[K, C, h, w]` that is left once channels are averaged.

    0 where there is one channel.
    """
    total = float(bank.square().sum())
    rest = float((bank - bank.mean(1, keepdim=True)).square().sum())
    return rest / total if total else 0.0


def as_pictures(bank: Tensor) -> Tensor:
    """Filters `[K, C, h, w]` from 0 to 1 each, as RGB `[K, 3, s, s]`; a constant filter is black.

    Channels beyond the third are left out; one channel is shown grey, and two as red and green.
    """
    low, high = bank.amin((1, 2, 3), keepdim=True), bank.amax((1, 2, 3), keepdim=True)
    shown = (bank - low) / (high - low).clamp_min(torch.finfo(bank.dtype).tiny)
    if bank.shape[1] == 1:
        shown = shown.expand(-1, 3, -1, -1)
    shown = pad(shown[:, :3], (0, 0, 0, 0, 0, 3 - min(3, shown.shape[1])))
    side = max(shown.shape[2:])
    return pad(shown, (0, side - shown.shape[3], 0, side - shown.shape[2]))


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    """What a batch norm multiplies each channel with, `[C]`, float64."""
    assert norm.running_var is not None
    scale: Tensor = (norm.running_var.detach().cpu().double() + norm.eps).rsqrt()
    return scale if norm.weight is None else scale * norm.weight.detach().cpu().double()


def _distinct(cosine: Tensor, same: float) -> int:
    """How many filters are left once each that is a copy of an earlier one is dropped."""
    kept: list[int] = []
    for i, row in enumerate(cosine):
        if not kept or float(row[kept].max()) < same:
            kept.append(i)
    return len(kept)


def _evenly(n: int, most: int) -> Tensor:
    return torch.arange(n) if n <= most else torch.linspace(0, n - 1, most).round().long()
