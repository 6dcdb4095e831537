"""Views per second of SimCLR's augmentation: ours against lightly, torchvision and kornia.

Run on an otherwise idle machine:

    pytest tests/benchmarks/test_views_benchmark.py --benchmark-only

All contenders draw from the same distribution, except that kornia shares one order of the colour
jitter's parts among a batch. They are timed in turn within every round; the table holds medians.
The two that work picture by picture run in as many loader processes as torch has threads.
"""

import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from bench.api import View
from bench.data.ops import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
)
from bench.data.views import render
from bench.rng import generator

PICTURES = {32: 2048, 96: 512}  # by size: about as long
BATCH, ROUNDS = 256, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KERNEL, SIGMA = 9, (0.1, 2.0)
Contender = Callable[[], object]  # renders two views of every picture


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each picture, each made on its own by `transform`."""

    def __init__(self, pictures: list[Image.Image] | Tensor, transform: Callable[..., Tensor]):
        self.pictures = pictures
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = self.pictures[index]
        return self.transform(picture), self.transform(picture)


def in_processes(pairs: Pairs) -> Contender:
    loader = DataLoader(pairs, BATCH, num_workers=torch.get_num_threads(), persistent_workers=True)
    return lambda: [None for _ in loader]


def ours(pixels: Tensor, jitter: tuple[float, float, float, float], blur: bool) -> Contender:
    brightness, contrast, saturation, hue = jitter
    ops = (
        RandomResizedCrop(scale=(0.08, 1.0)),
        HorizontalFlip(),
        ColorJitter(
            brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=0.8
        ),
        Grayscale(p=0.2),
        *([GaussianBlur(kernel=KERNEL, sigma=SIGMA)] if blur else []),
        Normalize(mean=MEAN, std=STD),
    )
    view = View("simclr", ops, count=2)
    rng = generator("benchmark")
    return lambda: [render(view, batch, rng) for batch in pixels.split(BATCH)]


def lightly(pixels: Tensor, jitter: tuple[float, float, float, float], blur: bool) -> Contender:
    from lightly.transforms.simclr_transform import SimCLRViewTransform

    brightness, contrast, saturation, hue = jitter
    transform = SimCLRViewTransform(
        input_size=pixels.shape[-1],
        cj_bright=brightness,
        cj_contrast=contrast,
        cj_sat=saturation,
        cj_hue=hue,
        gaussian_blur=0.5 if blur else 0.0,
        sigmas=SIGMA,
        normalize={"mean": MEAN, "std": STD},
    )
    pictures = [Image.fromarray(np.asarray(p.permute(1, 2, 0))) for p in pixels]
    return in_processes(Pairs(pictures, transform))


def torchvision(pixels: Tensor, jitter: tuple[float, float, float, float], blur: bool) -> Contender:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(pixels.shape[-1], antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*jitter)], 0.8),
            v2.RandomGrayscale(0.2),
            *([v2.RandomApply([v2.GaussianBlur(KERNEL, SIGMA)], 0.5)] if blur else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return in_processes(Pairs(pixels, transform))


def kornia(pixels: Tensor, jitter: tuple[float, float, float, float], blur: bool) -> Contender:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kornia.augmentation as K

    size = pixels.shape[-1]
    transform = nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(*jitter, p=0.8),
        K.RandomGrayscale(p=0.2),
        *([K.RandomGaussianBlur((KERNEL, KERNEL), SIGMA, p=0.5)] if blur else []),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    return lambda: [(transform(b / 255), transform(b / 255)) for b in pixels.split(BATCH)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("size", "jitter", "blur"),
    [(32, (0.4, 0.4, 0.4, 0.1), False), (96, (0.8, 0.8, 0.8, 0.2), True)],
    ids=["32px", "96px"],
)
def test_simclr_views(benchmark, request, capsys, size, jitter, blur):
    rng = generator("pictures", size)
    # Smooth pictures, like photographs, and unlike noise in how often colours clip.
    coarse = torch.rand(PICTURES[size], 3, 6, 6, generator=rng)
    smooth = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    pixels = (smooth * 255).byte()
    contenders = {f.__name__: f(pixels, jitter, blur) for f in (ours, lightly, torchvision, kornia)}
    rates: dict[str, list[float]] = {name: [] for name in contenders}

    def one_round() -> None:
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            rates[name].append(2 * len(pixels) / (time.perf_counter() - start))

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    median = {name: statistics.median(rate[1:]) for name, rate in rates.items()}
    ratio = median["ours"] / max(rate for name, rate in median.items() if name != "ours")
    benchmark.extra_info.update(views_per_s=median, ratio_to_best=ratio)
    table = ", ".join(f"{name} {rate:,.0f}" for name, rate in median.items())
    report = request.config.pluginmanager.get_plugin("terminalreporter")
    with capsys.disabled():
        report.write_line(f"\n{size} px, views/s: {table}; {ratio:.1f} x the best of the others")
