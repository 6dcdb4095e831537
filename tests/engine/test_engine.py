"""The training loop: resume, divergence, damaged checkpoints, a killed process."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import checkpoint, conformance, engine
from bench.api import Batch, Method, MethodConfig, OptimSpec, Step, TrainSet, Untrained, View
from bench.data.dataset import MemoryImages
from bench.data.ops import Normalize
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.progress import Reporter

QUIET = Reporter(quiet=True)
CPU = EngineConfig(device="cpu", precision="32")


class Regression(Method):
    """The mean colour of a picture; diverges at step `bad`."""

    class Config(MethodConfig):
        epochs: int = 2
        batch_size: int = 16
        bad: int | None = None

    def build(self) -> None:
        self.head = nn.Linear(self.backbone.dim, 3)
        self.register_buffer("seen", torch.zeros(conformance.PICTURES))

    def views(self) -> Sequence[View]:
        return (View("plain", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        self.seen.index_add_(0, batch.index, torch.ones(len(batch)))
        x = batch.view("plain")
        loss = (self.head(self.backbone(x)) - x.mean((2, 3))).square().mean()
        step.log("twice", 2 * loss)
        return loss * (float("nan") if step.index == self.cfg.bad else 1)

    def optim(self, phase: str) -> OptimSpec:
        return OptimSpec(lr=0.01)


def build(**config: int) -> Regression:
    method = conformance.build(Regression, "regression")
    method.cfg = Regression.Config(**config)
    return method


def fit(method: Method, folder: Path, cfg: EngineConfig = CPU, **extra: int) -> engine.Trained:
    split = conformance.toy_split()
    return engine.fit(method, split, cfg, seed=0, folder=folder, reporter=QUIET, **extra)


def test_every_picture_is_seen_once_per_epoch_and_logs_are_averaged(tmp_path: Path) -> None:
    method = build()
    trained = fit(method, tmp_path)
    assert trained.status == "ok"
    assert method.seen.tolist() == [2.0] * conformance.PICTURES
    assert trained.images_seen == 2 * conformance.PICTURES
    assert len(trained.history) == 2
    for row in trained.history:
        assert row["twice"] == pytest.approx(2 * row["loss"], rel=1e-6)


def test_non_finite_loss_diverges_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    cfg = CPU.model_copy(update={"checkpoint_seconds": 0.0})
    assert fit(build(bad=5), tmp_path, cfg).status == "diverged"
    state = checkpoint.load(tmp_path, torch.device("cpu"), QUIET)
    assert state is not None
    assert state["step"] == 5
    assert all(value.isfinite().all() for value in state["method"].values())


def test_a_truncated_checkpoint_falls_back_on_the_one_before(tmp_path: Path) -> None:
    undisturbed = build()
    (tmp_path / "a").mkdir()
    fit(undisturbed, tmp_path / "a")
    folder = tmp_path / "b"
    folder.mkdir()
    cfg = CPU.model_copy(update={"checkpoint_seconds": 0.0})
    fit(build(), folder, cfg, stop_after=4)
    last = folder / checkpoint.LAST
    last.write_bytes(last.read_bytes()[:1000])
    resumed = build()
    fit(resumed, folder)
    assert not conformance.differing(undisturbed, resumed)
    assert (folder / "last.damaged").exists()


def test_only_damaged_checkpoints_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / checkpoint.LAST).write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(BenchError, match="truncated or damaged"):
        fit(build(), tmp_path)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="there are 64"):
        fit(build(batch_size=65), tmp_path)


def test_weighted_sampling_draws_by_the_methods_weights(tmp_path: Path) -> None:
    class Weighted(Regression):
        def sample_weights(self) -> Tensor:
            return (torch.arange(conformance.PICTURES) < 4).float()

    method = conformance.build(Weighted, "weighted")
    fit(method, tmp_path)
    assert method.seen[:4].sum() == 2 * conformance.PICTURES
    assert method.seen[4:].sum() == 0


@pytest.mark.slow
def test_sigkill_at_any_moment_ends_in_the_same_weights(tmp_path: Path) -> None:
    """The real command, killed again and again, against the same command left alone."""

    def command(home: Path) -> tuple[list[str], dict[str, str]]:
        argv = [sys.executable, "-m", "bench.cli", "run", "--method", "rotnet", "--data", "digits"]
        argv += ["--protocol", "knn", "--epochs", "2", "--batch-size", "64", "--limit", "640"]
        argv += ["--set", "engine.checkpoint_seconds=0", "--results", str(home / "results")]
        return argv, os.environ | {"BENCH_CACHE": str(home)}

    def final(home: Path) -> dict[str, Tensor]:
        (path,) = home.glob("runs/*/final.safetensors")
        return load_file(path)

    argv, environment = command(tmp_path / "calm")
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    argv, environment = command(tmp_path / "killed")
    kills = 0
    for wait in (0.3, 0.7, 0.2):
        process = subprocess.Popen(
            argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        seen = _newest(tmp_path / "killed")
        while process.poll() is None and time.monotonic() < deadline:
            if _newest(tmp_path / "killed") > seen:  # training has moved on by a checkpoint
                time.sleep(wait)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 1, "no kill came in time to disturb the run"
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    calm, killed = final(tmp_path / "calm"), final(tmp_path / "killed")
    assert calm.keys() == killed.keys()
    assert all(torch.equal(calm[key], killed[key]) for key in calm)


def _newest(home: Path) -> float:
    return max((p.stat().st_mtime for p in home.glob("runs/*/last.pt")), default=0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_trains_in_bf16_and_gives_back_finite_weights(tmp_path: Path) -> None:
    method = build()
    trained = fit(method, tmp_path, EngineConfig().resolved())
    assert trained.status == "ok"
    assert trained.peak_memory is not None
    assert method.head.weight.is_cuda
    assert all(value.isfinite().all() for value in method.state_dict().values())


class Fitted(Untrained):
    """Keeps what `initialize` was shown."""

    def build(self) -> None:
        self.register_buffer("kept", torch.zeros(8, 3, conformance.SIZE, conformance.SIZE))
        self.register_buffer("calls", torch.zeros(()))

    def initialize(self, train: TrainSet) -> None:
        self.kept.copy_(train.sample(8))
        self.calls += 1


def test_a_method_without_epochs_is_initialised_from_the_data(tmp_path: Path) -> None:
    kept = []
    for attempt in range(2):
        method = conformance.build(Fitted, "fitted")
        folder = tmp_path / str(attempt)
        engine.fit(method, conformance.toy_split(), CPU, seed=3, folder=folder, reporter=QUIET)
        assert method.calls.item() == 1
        kept.append(method.kept)
    assert torch.equal(*kept), "the sample is not the same in a repeat"
    images = conformance.toy_split().images
    assert isinstance(images, MemoryImages)
    shown = conformance.toy_info().rgb(kept[0]).mul(255).round().to(torch.uint8)
    distances = (shown[:, None].int() - images.pixels[None].int()).abs().flatten(2).amax(2)
    assert torch.equal(distances.amin(1), torch.zeros(8)), "a sampled picture is none of the data"
    assert len(distances.argmin(1).unique()) == 8


def test_a_resumed_run_is_not_initialised_again(tmp_path: Path) -> None:
    class Counted(Regression):
        def initialize(self, train: TrainSet) -> None:
            self.seen += 100

    split = conformance.toy_split()
    for _ in range(2):
        method = conformance.build(Counted, "counted")
        engine.fit(method, split, CPU, seed=0, folder=tmp_path, reporter=QUIET, stop_after=2)
    assert method.seen.amin() >= 100 and method.seen.amax() < 200


def test_weights_that_are_not_finite_are_never_relabelled_by(tmp_path: Path) -> None:
    class Breaks(Regression):
        def before_epoch(self, epoch: int, train: TrainSet) -> None:
            assert epoch == 0, "an epoch began with weights that are not finite"

        def after_step(self, step: Step) -> None:
            if step.index == 3:  # the last step of the first epoch; its loss was finite
                self.head.weight.fill_(float("nan"))

    method = conformance.build(Breaks, "breaks")
    split = conformance.toy_split()
    done = engine.fit(method, split, CPU, seed=0, folder=tmp_path, reporter=QUIET)
    assert done.status == "diverged" and len(done.history) == 1


class Phased(Regression):
    """Trains the head, then in the second half of training the backbone; both with momentum."""

    phases = ("head", "backbone")

    def span(self, phase: str) -> tuple[float, float]:
        return (0.0, 0.5) if phase == "head" else (0.5, 1.0)

    def parameters_for(self, phase: str) -> list[nn.Parameter]:
        return list(self.get_submodule(phase).parameters())


class Rates(Phased):
    """Lowers one number by the learning rate of each step, and notes it."""

    def build(self) -> None:
        self.head = nn.Linear(1, 1)
        self.number = nn.Parameter(torch.zeros(1, 1))
        self.register_buffer("at", torch.zeros(20))

    def span(self, phase: str) -> tuple[float, float]:
        return (0.0, 0.4) if phase == "head" else (0.4, 1.0)

    def parameters_for(self, phase: str) -> list[nn.Parameter]:
        return [self.number]

    def loss(self, batch: Batch, step: Step) -> Tensor:
        return self.number.sum()

    def after_step(self, step: Step) -> None:
        self.at[step.index] = self.number.sum()

    def optim(self, phase: str) -> OptimSpec:
        if phase == "head":
            return OptimSpec(lr=0.5, momentum=0.0, warmup_epochs=1)
        return OptimSpec(lr=0.2, momentum=0.0, schedule="step", milestones=(0.5,), gammas=(0.1,))


def test_a_phase_takes_part_in_its_span_and_its_schedule_runs_within_it(tmp_path: Path) -> None:
    """Of 5 epochs of 4 steps the first phase has 2 and the second 3."""
    method = conformance.build(Rates, "rates")
    method.cfg = Rates.Config(epochs=5)
    trained = fit(method, tmp_path)
    rates = -torch.diff(method.at, prepend=torch.zeros(1))
    cosine = [0.25 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    first = [0.125, 0.25, 0.375, 0.5, *cosine]
    assert rates.tolist() == pytest.approx([*first, *[0.2] * 6, *[0.02] * 6], abs=1e-5)
    logged = [{key for key in row if key.startswith("loss")} for row in trained.history]
    assert logged == [{"loss_head"}] * 2 + [{"loss_backbone"}] * 3


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_resume_around_the_end_of_a_phase_is_exact(tmp_path: Path, stop: int) -> None:
    """The first phase ends with step 4; each phase keeps the momentum of its own optimiser."""
    undisturbed = conformance.build(Phased, "phased")
    fit(undisturbed, tmp_path / "calm")
    for steps in (stop, 8 - stop):
        resumed = conformance.build(Phased, "phased")
        fit(resumed, tmp_path / "resumed", stop_after=steps)
    assert not conformance.differing(undisturbed, resumed)
    begun = conformance.build(Phased, "phased").state_dict()
    moved = {
        key.partition(".")[0]
        for key, value in resumed.named_parameters()
        if not torch.equal(begun[key], value)
    }
    assert moved == {"head", "backbone"}, "both phases took part"
