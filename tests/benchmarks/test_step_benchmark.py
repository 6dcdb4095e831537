"""Pictures per second of one whole contrastive training step: our views against a DataLoader's.

Run on an otherwise idle machine:

    pytest tests/benchmarks/test_step_benchmark.py --benchmark-only

Backbone, batch, loss, optimiser and the distribution of views (SimCLR's for CIFAR-10) are the
same; only who makes the views differs: `bench.data.views.render` between steps, or torchvision's
transforms, picture by picture, in two loader processes that work ahead while the step computes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from bench import backbones
from bench.api import View
from bench.data.ops import ColorJitter, Grayscale, HorizontalFlip, Normalize, RandomResizedCrop
from bench.data.views import render
from bench.rng import generator

SIZE, BATCH, STEPS, ROUNDS = 32, 256, 6, 5
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
JITTER = (0.4, 0.4, 0.4, 0.1)
Pair = tuple[Tensor, Tensor]


class Pairs(Dataset[Pair]):
    """Two torchvision views of each picture."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(SIZE, scale=(0.2, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(*JITTER)], 0.8),
                v2.RandomGrayscale(0.1),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Pair:
        return self.transform(self.pixels[index]), self.transform(self.pixels[index])


def rendered(pixels: Tensor) -> Iterator[Pair]:
    brightness, contrast, saturation, hue = JITTER
    ops = (
        RandomResizedCrop(scale=(0.2, 1.0)),
        HorizontalFlip(),
        ColorJitter(
            brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=0.8
        ),
        Grayscale(p=0.1),
        Normalize(mean=MEAN, std=STD),
    )
    view, rng = View("simclr", ops, count=2), generator("benchmark")
    for batch in pixels.split(BATCH):
        one, two = render(view, batch, rng)
        yield one, two


class Trainer:
    """A backbone and a projector under a contrastive loss."""

    def __init__(self) -> None:
        backbone = backbones.build("small", SIZE)
        net = nn.Sequential(backbone, nn.Linear(backbone.dim, 64))
        self.net = net.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def epoch(self, pairs: Iterator[Pair]) -> None:
        for one, two in pairs:
            a, b = F.normalize(self.net(torch.cat([one, two]))).chunk(2)
            loss = F.cross_entropy(a @ b.T / 0.5, torch.arange(len(a)))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_whole_step(benchmark, request, capsys):
    pixels = torch.randint(0, 256, (BATCH * STEPS, 3, SIZE, SIZE), dtype=torch.uint8)
    loader = DataLoader(Pairs(pixels), BATCH, num_workers=2, persistent_workers=True)
    trainer = Trainer()
    seconds: dict[str, list[float]] = {"ours": [], "loader": []}

    def one_round() -> None:
        # A loader's iterator begins to work when it is made: not before its turn.
        for name, pairs in (("ours", lambda: rendered(pixels)), ("loader", lambda: iter(loader))):
            start = time.perf_counter()
            trainer.epoch(pairs())
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    rates = {name: len(pixels) / value for name, value in medians.items()}
    ratio = rates["ours"] / rates["loader"]
    benchmark.extra_info |= {**rates, "ratio": ratio}
    report = request.config.pluginmanager.get_plugin("terminalreporter")
    with capsys.disabled():
        report.write_line(
            f"\n{SIZE} px, images/s of a whole step: ours {rates['ours']:,.0f}, "
            f"DataLoader {rates['loader']:,.0f}; {ratio:.1f} x"
        )
