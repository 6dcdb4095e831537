"""What every method must hold to, as `bench check` and the test suite run it.

The checks train for a few steps on a toy data set on the CPU, where runs repeat bit for bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench import backbones, engine, registry, rng
from bench.api import Batch, DataInfo, Method, Step, Untrained
from bench.data.dataset import MemoryImages, Split
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.loader import Loader
from bench.progress import Reporter
from bench.resolve import method_config

BATCH, PICTURES, CLASSES, SIZE = 16, 64, 4, 32
LISTED = 16  # the first pictures, 4 of each class: whose labels a method that needs few may use

Check = Callable[[type[Method], str], None]


def check_method(name: str) -> Iterator[tuple[str, str | None]]:
    """Run every check on a method; yields (what is checked, None or the fault)."""
    cls = registry.method(name)
    for check in checks_for(cls):
        try:
            check(cls, registry.plain_name(name))
        except (AssertionError, BenchError, RuntimeError, TypeError, ValueError) as error:
            yield title(check), f"{type(error).__name__}: {error}".partition("\n")[0]
        else:
            yield title(check), None


def checks_for(cls: type[Method]) -> tuple[Check, ...]:
    """The checks that apply to a method: a baseline without training has fewer."""
    return ALWAYS if issubclass(cls, Untrained) else ALWAYS + TRAINED


def title(check: Check) -> str:
    """The first line of a check's docstring."""
    return (check.__doc__ or check.__name__).partition("\n")[0].rstrip(".")


# ------------------------------------------------------------------------------------- the checks
def describes_itself(cls: type[Method], name: str) -> None:
    """The module's docstring says what the method is, and every recipe is valid."""
    import sys

    module = sys.modules[cls.__module__]
    assert (module.__doc__ or "").strip(), "the file has no docstring; `bench list` shows it"
    for recipe in ("paper", *cls.recipes):
        method_config(cls, name, recipe, {})


def encoder_keeps_its_shapes(cls: type[Method], name: str) -> None:
    """The encoder gives finite [B, dim], and a map [B, C, h, w] for each layer it names."""
    encoder = build(cls, name).encoder().eval()
    x = torch.randn(3, 3, SIZE, SIZE, generator=rng.generator("conformance"))
    with torch.no_grad():
        out, maps = encoder(x), encoder.maps(x)
        both = encoder.tap(x)
    torch.testing.assert_close(both, (out, maps), msg="tap is not forward and maps")
    assert out.shape == (3, encoder.dim), f"gave {tuple(out.shape)}, dim says {encoder.dim}"
    assert out.isfinite().all(), "the representation is not finite"
    assert tuple(maps) == tuple(encoder.layers), f"maps {list(maps)}, layers {encoder.layers}"
    for layer, value in maps.items():
        assert value.ndim == 4 and len(value) == 3, f"{layer} is {tuple(value.shape)}"


def state_dict_round_trip(cls: type[Method], name: str) -> None:
    """The state dict of one object, loaded into another, gives the same representation."""
    one, other = build(cls, name, seed=1), build(cls, name, seed=2)
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 3, SIZE, SIZE, generator=rng.generator("conformance"))
    with torch.no_grad():
        same = torch.equal(one.encoder().eval()(x), other.encoder().eval()(x))
    assert same, "the two differ: some state is neither a parameter nor a persistent buffer"


def loss_falls_on_one_batch(cls: type[Method], name: str) -> None:
    """Each phase's loss is finite and falls on one memorised batch."""
    for phase in build(cls, name).phases:
        method = build(cls, name).train()
        batch = memorised(method)
        optimizer = torch.optim.Adam(list(method.parameters_for(phase)), lr=1e-3)
        losses = []
        for index in range(25):
            optimizer.zero_grad()
            # The same draws in every step, so that only the parameters can move the loss.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(rng.fold("conformance"))
                loss = method.loss(batch, step_at(phase, index, total=25))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert all(value == value and abs(value) != float("inf") for value in losses), (
            f"phase {phase}: the loss is not finite"
        )
        first, last = losses[0], sum(losses[-3:]) / 3
        assert last < first, f"phase {phase}: the loss went from {first:.4f} to {last:.4f}"


def every_parameter_gets_a_gradient(cls: type[Method], name: str) -> None:
    """Every trainable parameter belongs to a phase and gets a finite gradient in it."""
    method = build(cls, name).train()
    batch = memorised(method)
    trained: set[int] = set()
    for phase in method.phases:
        method.zero_grad(set_to_none=True)
        method.loss(batch, step_at(phase, 0)).backward()
        for parameter in method.parameters_for(phase):
            if parameter.grad is not None and parameter.grad.isfinite().all():
                trained.add(id(parameter))
    named = method.named_parameters()
    left = [key for key, value in named if value.requires_grad and id(value) not in trained]
    assert not left, f"no gradient reaches {', '.join(left[:4])}"


def labels_are_not_seen(cls: type[Method], name: str) -> None:
    """Permuted labels change nothing, but those that the method declares and may use."""
    needs = cls.needs_of(build(cls, name).cfg)
    if "labels" in needs:
        return
    plain = toy_split()
    assert plain.labels is not None
    hidden = torch.arange(LISTED if "labeled" in needs else 0, PICTURES)
    shuffle = hidden[torch.randperm(len(hidden), generator=rng.generator("permuted"))]
    permuted = replace(plain, labels=plain.labels.index_copy(0, hidden, plain.labels[shuffle]))
    states: list[Method] = []
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "labeled.txt"
        listed.write_text("\n".join(map(str, range(LISTED))), "utf-8")
        for split in (plain, permuted):
            method = build(cls, name)
            if "labeled" in needs:  # by a list, as a draw would depend on the labels
                method.cfg = method.cfg.model_copy(update={"labels": str(listed)})
            fit(method, split, 2, Path(folder) / str(len(states)))
            states.append(method)
    assert same_state(*states), "the weights depend on labels that are not declared"


def resume_is_exact(cls: type[Method], name: str) -> None:
    """Five steps are the same, bit for bit, as three, a save, a fresh object and two."""
    undisturbed = trained(cls, name, toy_split(), 5)
    with tempfile.TemporaryDirectory() as folder:
        for steps in (3, 2):
            resumed = build(cls, name)
            fit(resumed, toy_split(), steps, Path(folder))
    keys = differing(undisturbed, resumed)
    assert not keys, f"{', '.join(keys[:4])} differ after a resume"


def global_seed_is_left_alone(cls: type[Method], name: str) -> None:
    """Training neither reads nor moves the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        one = trained(cls, name, toy_split(), 2)
        assert torch.equal(before, torch.get_rng_state()), "the global random state was moved"
        torch.manual_seed(2)
        other = trained(cls, name, toy_split(), 2)
    assert same_state(one, other), "the weights depend on the global seed"


def bf16_autocast_is_finite(cls: type[Method], name: str) -> None:
    """Two steps under bf16 autocast leave finite weights."""
    method = trained(cls, name, toy_split(), 2, precision="bf16")
    bad = [key for key, value in method.state_dict().items() if not value.isfinite().all()]
    assert not bad, f"{bad[0]} is not finite"


def picture_can_be_drawn(cls: type[Method], name: str) -> None:
    """The picture has panels of finite RGB tiles, with as many captions as tiles or none."""
    method = build(cls, name).train()
    batch = memorised(method)
    with torch.no_grad():
        panels = method.eval().picture(batch, step_at(method.phases[-1], 0))
    assert panels, "there are no panels"
    for panel in panels:
        tiles = panel.tiles
        assert tiles.ndim == 4 and tiles.shape[1] == 3 and len(tiles), f"tiles {tiles.shape}"
        assert tiles.isfinite().all(), f"a tile of '{panel.title}' is not finite"
        for each in (panel.captions, panel.good):
            assert len(each) in (0, len(tiles)), f"{len(each)} for {len(tiles)} tiles"


ALWAYS: tuple[Check, ...] = (describes_itself, encoder_keeps_its_shapes, state_dict_round_trip)
TRAINED: tuple[Check, ...] = (
    loss_falls_on_one_batch,
    every_parameter_gets_a_gradient,
    labels_are_not_seen,
    resume_is_exact,
    global_seed_is_left_alone,
    bf16_autocast_is_finite,
    picture_can_be_drawn,
)


# ---------------------------------------------------------------------------- the toy they run on
def toy_split() -> Split:
    """64 smooth random pictures of 32 px with every kind of annotation that a method may need."""
    draw = rng.generator("toy")
    coarse = torch.rand(PICTURES, 3, 5, 5, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, SIZE + 4, mode="bicubic").clamp(0, 1)
    pixels = (smooth * 255).to(torch.uint8)
    labels = torch.arange(PICTURES) % CLASSES
    return Split(
        name="train",
        images=MemoryImages(pixels[:, :, 2:-2, 2:-2].contiguous()),
        digest="toy",
        labels=labels,
        text=tuple(f"a picture of class {label}" for label in labels.tolist()),
        frames=MemoryImages(pixels[:, :, 3:-1, 1:-3].contiguous()),
        motion=torch.randn(PICTURES, 4, generator=draw),
    )


def toy_info() -> DataInfo:
    """What a method is told of the toy data set."""
    return DataInfo(
        name="toy",
        digest="toy",
        size=SIZE,
        classes=tuple("abcd"),
        n_train=PICTURES,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        has=frozenset({"color", "labels", "text", "frames", "motion"}),
    )


def build(cls: type[Method], name: str, seed: int = 0) -> Method:
    """The method with its toy or small recipe (where it has one), 2 epochs of 4 steps."""
    recipe = next((name for name in ("toy", "small") if name in cls.recipes), "paper")
    budget = {} if issubclass(cls, Untrained) else {"epochs": 2, "batch_size": BATCH}
    if "pretrained" in cls.needs:
        budget = {"input_size": SIZE}
    cfg = method_config(cls, name, recipe, budget)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("conformance", seed))
        return cls(cfg, backbones.build(cls.default_backbone, SIZE), toy_info())


def fit(method: Method, split: Split, steps: int, folder: Path, precision: str = "32") -> None:
    """`steps` optimiser steps on the CPU, checkpointed in `folder`."""
    cfg = EngineConfig(device="cpu", precision=precision)
    quiet = Reporter(quiet=True)
    engine.fit(method, split, cfg, seed=0, folder=folder, reporter=quiet, stop_after=steps)


def trained(
    cls: type[Method], name: str, split: Split, steps: int, precision: str = "32"
) -> Method:
    """A fresh method after `steps` optimiser steps."""
    method = build(cls, name)
    with tempfile.TemporaryDirectory() as folder:
        fit(method, split, steps, Path(folder), precision)
    return method


def memorised(method: Method) -> Batch:
    """One batch of the toy data with everything that the method declares, once it is ready."""
    loader = Loader(method, toy_split(), 0, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("conformance"))
        method.initialize(loader.pictures())
        method.before_epoch(0, loader.pictures())
    return next(loader.of([torch.arange(BATCH)]))


def step_at(phase: str, index: int, total: int = 8) -> Step:
    """A step of the first epoch, with the same draws whatever its index."""
    draw = rng.generator("conformance", phase)
    return Step(phase=phase, epoch=0, epochs=2, index=index, total=total, rng=draw)


def differing(one: Method, other: Method) -> list[str]:
    """The keys of the state dict in which two methods differ in any bit."""
    theirs = other.state_dict()
    return [key for key, value in one.state_dict().items() if not _same(value, theirs[key])]


def same_state(one: Method, other: Method) -> bool:
    """Whether two methods have the same state, bit for bit."""
    return not differing(one, other)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one, other))
