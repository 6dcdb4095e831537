"""One SimCLR training step of ours against one built from lightly's parts: steps/s and memory.

Run on an otherwise idle machine, with a GPU or without:

    pytest tests/benchmarks/test_lightly_step_benchmark.py --benchmark-only

Backbone (`small`), initial weights, batch, augmentation, optimiser and precision (float32) are the
same; the two take turns within every round. Ours is `methods.simclr` as the engine steps it, with
its diagnostics and its schedule; theirs follows lightly's own example: SimCLRProjectionHead and
NTXentLoss, one forward pass for each view. They are timed twice: on the same views, rendered
beforehand, and each with its own way to make views: `bench.data.views.render`, or lightly's
SimCLRTransform in two loader processes. Memory: on a GPU the most that was allocated in a step; on
a CPU the bytes that the forward pass keeps for the backward pass, weights left out.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bench import backbones, optim
from bench.api import Backbone, Batch, DataInfo, Step
from bench.data.views import render
from bench.resolve import method_config
from bench.rng import generator
from methods.simclr import SimCLR

SIZE, BATCH, STEPS, ROUNDS, TEMPERATURE = 32, 256, 6, 5, 0.5
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Views = list[Tensor]
INFO = DataInfo(
    name="noise",
    digest="",
    size=SIZE,
    classes=("a", "b"),
    n_train=BATCH * STEPS,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


class Ours:
    """The method, stepped as the engine does."""

    def __init__(self, backbone: Backbone) -> None:
        settings = {"batch_size": BATCH, "projector_norm": True, "hidden": None}
        cfg = method_config(SimCLR, "simclr", "cifar10", settings)
        self.method = SimCLR(cfg, backbone, INFO).to(DEVICE, memory_format=torch.channels_last)
        self.spec = self.method.optim("main")
        self.optimizer = optim.build(self.spec, self.method.parameters_for("main"))
        self.index = torch.arange(BATCH, device=DEVICE)
        self.done = 0

    def loss(self, views: Views) -> Tensor:
        rng = generator("step", self.done, device=DEVICE)
        step = Step("main", 0, 100, self.done, 100 * STEPS, rng)
        return self.method.loss(Batch({"view": views}, self.index), step)

    def step(self, views: Views) -> Tensor:
        self.method.zero_grad(set_to_none=True)
        loss = self.loss(views)
        loss.backward()
        optim.schedule(self.optimizer, self.spec, self.done, STEPS, 100 * STEPS, BATCH)
        self.optimizer.step()
        self.done += 1
        return loss.detach()

    def views(self, pixels: Tensor) -> Iterator[Views]:
        (view,) = self.method.views()
        rng = generator("views", self.done, device=DEVICE)
        for batch in pixels.split(BATCH):
            yield render(view, batch.to(DEVICE), rng)


class Lightly:
    """lightly's SimCLR example."""

    def __init__(self, backbone: Backbone, like: Ours) -> None:
        head = SimCLRProjectionHead(backbone.dim, backbone.dim, like.method.cfg.projection)
        given = like.method.projector.state_dict().values()
        head.load_state_dict(dict(zip(head.state_dict(), given, strict=True)))
        net = nn.Sequential(backbone, head)
        self.net = net.to(DEVICE, memory_format=torch.channels_last)
        self.criterion = NTXentLoss(TEMPERATURE)
        spec = like.spec
        self.optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=optim.peak_lr(spec, BATCH),
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
        )

    def loss(self, views: Views) -> Tensor:
        one, two = views
        loss: Tensor = self.criterion(self.net(one), self.net(two))
        return loss

    def step(self, views: Views) -> Tensor:
        loss = self.loss(views)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


class Transformed(Dataset[Views]):
    """Two of lightly's views of each picture, with the settings that ours has."""

    def __init__(self, pixels: Tensor, cfg: SimCLR.Config) -> None:
        self.pictures = [Image.fromarray(np.asarray(p.permute(1, 2, 0))) for p in pixels]
        brightness, contrast, saturation, hue = cfg.jitter
        self.transform = SimCLRTransform(
            input_size=SIZE,
            cj_prob=cfg.jitter_p,
            cj_bright=brightness,
            cj_contrast=contrast,
            cj_sat=saturation,
            cj_hue=hue,
            min_scale=cfg.crop[0],
            random_gray_scale=cfg.gray,
            gaussian_blur=cfg.blur,
            hf_prob=cfg.flip,
            normalize={"mean": INFO.mean, "std": INFO.std},
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Views:
        views: Views = self.transform(self.pictures[index])
        return views


def train(step: Callable[[Views], Tensor], batches: Iterable[Views]) -> float:
    """Seconds of an epoch."""
    start = time.perf_counter()
    losses = [step([view.to(DEVICE) for view in views]) for views in batches]
    assert torch.stack(losses).isfinite().all()  # waits for a GPU
    return time.perf_counter() - start


def memory(trainer: Ours | Lightly, views: Views) -> int:
    """Bytes: a step's peak beyond what is there before on a GPU, what is kept on a CPU."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.step(views)
        return torch.cuda.max_memory_allocated() - before
    module = trainer.method if isinstance(trainer, Ours) else trainer.net
    own = {
        p.untyped_storage().data_ptr() for p in (*module.parameters(), *module.buffers(), *views)
    }
    kept: dict[int, Tensor] = {}  # the tensors stay, so that no address is given out twice

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss = trainer.loss(views)
    size = sum(v.untyped_storage().nbytes() for at, v in kept.items() if at not in own)
    del loss
    return size


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_simclr_step(benchmark, request, capsys):
    coarse = torch.rand(BATCH * STEPS, 3, 6, 6, generator=generator("pictures"))
    smooth = nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)
    pixels = (smooth * 255).byte()
    torch.manual_seed(0)
    backbone = backbones.build("small", SIZE)
    ours = Ours(copy.deepcopy(backbone))
    theirs = Lightly(backbone, ours)
    loader = DataLoader(
        Transformed(pixels, ours.method.cfg), BATCH, num_workers=2, persistent_workers=True
    )
    same = list(ours.views(pixels))
    contenders = {
        "ours, same views": (ours.step, lambda: same),
        "lightly, same views": (theirs.step, lambda: same),
        "ours, own views": (ours.step, lambda: ours.views(pixels)),
        "lightly, own views": (theirs.step, lambda: loader),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}

    def one_round() -> None:
        for name, (step, batches) in contenders.items():
            seconds[name].append(train(step, batches()))

    # Ours sees both views in one batch norm, which is all that tells the two losses apart.
    first = (trainer.loss(same[0]).item() for trainer in (ours, theirs))
    assert next(first) == pytest.approx(next(first), rel=0.01)
    kept = {"ours": memory(ours, same[0]), "lightly": memory(theirs, same[0])}
    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    rates = {name: STEPS / statistics.median(taken[1:]) for name, taken in seconds.items()}
    ratios = {
        "same views": rates["ours, same views"] / rates["lightly, same views"],
        "own views": rates["ours, own views"] / rates["lightly, own views"],
        "memory": kept["ours"] / kept["lightly"],
    }
    benchmark.extra_info.update(steps_per_s=rates, bytes=kept, ratios=ratios, device=DEVICE.type)
    report = request.config.pluginmanager.get_plugin("terminalreporter")
    what = "peak" if DEVICE.type == "cuda" else "kept for the backward pass"
    with capsys.disabled():
        report.write_line(
            f"\n{DEVICE.type}, {BATCH} pictures of {SIZE} px, steps/s: "
            + ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
            + f"; {what}: ours {kept['ours'] / 2**20:.0f} MiB, "
            f"lightly {kept['lightly'] / 2**20:.0f} MiB; ours / lightly: "
            + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        )
