"""One training step of ours against one built from lightly's parts: steps/s and memory.

Run on an otherwise idle machine, with a GPU or without:

    pytest tests/benchmarks/test_lightly_step_benchmark.py --benchmark-only

The steps are those of `bench profile step --vs lightly`: backbone (`small`), initial weights,
views, batch, optimiser, schedule and precision (float32) are the same; the two take turns.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from bench import backbones, conformance, registry
from bench.data.dataset import MemoryImages
from bench.engine import EngineConfig
from bench.profiling import peer_step
from bench.profiling.stepper import Stepper
from bench.profiling.view_makers import pictures
from bench.resolve import method_config

BATCH, STEPS, ROUNDS = 256, 6, 5


@pytest.mark.parametrize("name", peer_step.STEPS)
def test_step(benchmark, request, capsys, name):
    cls = registry.method(name)
    cfg = method_config(cls, name, "small", {"batch_size": BATCH})
    info = replace(conformance.toy_info(), n_train=BATCH * STEPS)
    images = MemoryImages(pictures(BATCH * STEPS, info.size))
    split = replace(
        conformance.toy_split(), images=images, labels=None, text=None, frames=None, motion=None
    )
    torch.manual_seed(0)
    ours = cls(cfg, backbones.build("small", info.size), info)
    theirs = peer_step.build("lightly", name, ours)
    engine = EngineConfig(precision="32").resolved()
    steppers = {
        "ours": Stepper(ours, split, engine, seed=0),
        "lightly": Stepper(theirs, split, engine, seed=0),
    }
    spent: dict[str, list[float]] = {name: [] for name in steppers}

    def one_round() -> None:
        for which, stepper in steppers.items():
            spent[which] += [sum(line.read().values()) for line in stepper.advance(STEPS)]

    one_round()
    kept = {which: stepper.saved() for which, stepper in steppers.items()}
    for samples in spent.values():
        samples.clear()  # of the warm-up
    benchmark.pedantic(one_round, rounds=ROUNDS)
    rates = {which: 1e3 / statistics.median(samples) for which, samples in spent.items()}
    speed, memory = rates["ours"] / rates["lightly"], kept["ours"] / kept["lightly"]
    benchmark.extra_info.update(
        steps_per_s=rates, bytes=kept, speed=speed, memory=memory, device=engine.device
    )
    report = request.config.pluginmanager.get_plugin("terminalreporter")
    with capsys.disabled():
        report.write_line(
            f"\n{engine.device}, {name}, {BATCH} pictures of {info.size} px, steps/s: "
            f"ours {rates['ours']:.2f}, lightly {rates['lightly']:.2f} ({speed:.2f} x); kept for "
            f"the backward pass: ours {kept['ours'] / 2**20:.0f} MiB, "
            f"lightly {kept['lightly'] / 2**20:.0f} MiB ({memory:.2f} x)"
        )
