"""SimCLRv2: its encoder, and its three phases: what each trains, sees, and leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import conformance, engine, rng
from bench.data.dataset import Split
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.progress import Reporter
from bench.resolve import method_config
from methods.simclr_v2 import SimCLRv2


class Semi(SimCLRv2):
    """With a quarter of the labels; conformance's two epochs fine-tune, then distil."""

    recipes = {
        "toy": {**SimCLRv2.recipes["small_labels"], "labels": 0.25, "phase_epochs": (0, 1, 1)}
    }


def build(**settings: object) -> SimCLRv2:
    given = {"epochs": 3, "batch_size": 16, "labels": 0.25, "phase_epochs": (1, 1, 1), **settings}
    cfg = method_config(SimCLRv2, "simclr_v2", "small", given)
    backbone = conformance.build(SimCLRv2, "simclr_v2").backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("simclr_v2"))
        return SimCLRv2(cfg, backbone, conformance.toy_info())


def train(method: SimCLRv2, split: Split, folder: Path, steps: int | None) -> engine.Trained:
    cfg, quiet = EngineConfig(device="cpu", precision="32"), Reporter(quiet=True)
    return engine.fit(method, split, cfg, seed=0, folder=folder, reporter=quiet, stop_after=steps)


def state(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("check", conformance.TRAINED, ids=lambda check: check.__name__)
def test_with_labels_it_passes_every_check_too(check: conformance.Check) -> None:
    check(Semi, "semi")


def test_the_encoder_ends_with_the_first_of_three_layers() -> None:
    method = build(labels=0.0, hidden=40).eval()
    widths = [layer.out_features for layer in method.projector if isinstance(layer, nn.Linear)]
    assert widths == [40, 40, 128]
    encoder, x = method.encoder(), torch.randn(3, 3, 32, 32, generator=rng.generator("x"))
    assert encoder.dim == 40 and encoder.layers == method.backbone.layers
    linear, norm = method.projector[0], method.projector[1]
    torch.testing.assert_close(encoder(x), norm(linear(method.backbone(x))).clamp_min(0))
    rest = nn.Sequential(*list(method.projector)[3:])
    torch.testing.assert_close(rest(encoder(x)), method.projector(method.backbone(x)))


def test_phases_follow_one_another_and_each_trains_its_own_part(tmp_path: Path) -> None:
    """Three epochs of four steps; the order of the phases is that of the epochs."""
    method, split = build(), conformance.toy_split()
    parts = {
        "backbone": method.backbone,
        "first layer": method.projector[0],
        "later layers": nn.Sequential(*list(method.projector)[3:]),
        "task head": method.task_head,
        "student": method.student,
        "student head": method.student_head,
    }
    changed = []
    for _ in range(3):
        before = {name: state(part) for name, part in parts.items()}
        trained = train(method, split, tmp_path, 4)
        changed.append({name for name in parts if not same(before[name], state(parts[name]))})
    assert changed == [
        {"backbone", "first layer", "later layers"},
        {"backbone", "first layer", "task head"},
        {"student", "student head"},
    ]
    logged = [{key for key in row if key.startswith("loss_")} for row in trained.history]
    assert logged == [{"loss_main"}, {"loss_finetune"}, {"loss_distill"}]
    assert method.encoder() is method.student


def test_only_the_labels_of_the_labelled_share_have_an_effect(tmp_path: Path) -> None:
    split = conformance.toy_split()
    assert split.labels is not None
    plain = build()
    chosen = plain.labelled.chosen > 0
    assert chosen.sum() == conformance.PICTURES // 4
    train(plain, split, tmp_path / "a", None)
    other = (split.labels + 1) % conformance.CLASSES
    for where, equal in ((chosen, True), (~chosen, False)):
        method = build()
        labels = split.labels.where(where, other)
        train(method, replace(split, labels=labels), tmp_path / str(equal), None)
        assert conformance.same_state(plain, method) is equal


def test_fine_tuning_draws_labelled_pictures_only() -> None:
    method, train_set = build(), None
    weights = []
    for epoch in range(3):
        method.before_epoch(epoch, train_set)  # type: ignore[arg-type]
        weights.append(method.sample_weights())
    assert weights[0] is None and weights[2] is None
    assert weights[1] is not None and torch.equal(weights[1], method.labelled.chosen)


def test_fine_tuning_is_the_mean_cross_entropy_of_the_labelled() -> None:
    method = build(labels=0.5).double().eval()
    batch = conformance.memorised(method)
    batch.views["plain"] = [batch.view("plain").double()]
    loss = method.loss(batch, conformance.step_at("finetune", 0))
    logits = method.task_head(method.projector[:3](method.backbone(batch.view("plain"))))
    assert batch.label is not None
    rows = [
        -logits[row].log_softmax(0)[batch.label[row]].item()
        for row in range(len(batch))
        if method.labelled.chosen[batch.index[row]] > 0
    ]
    assert 0 < len(rows) < len(batch)
    assert loss.item() == pytest.approx(sum(rows) / len(rows), rel=1e-10)


def test_distillation_has_the_gradient_of_a_divergence_and_none_for_the_teacher() -> None:
    """Cross-entropy and KL differ by the teacher's entropy, which has no gradient here."""
    method = build(distill_temperature=0.5).double()
    batch = conformance.memorised(method)
    batch.views["plain"] = [batch.view("plain").double()]
    x = batch.view("plain")
    method.train()
    norms = state(method.backbone)
    loss = method.loss(batch, conformance.step_at("distill", 0))
    assert same(norms, state(method.backbone)), "the teacher's batch norms moved"
    assert method.backbone.training, "the teacher was left in eval mode"
    student = list(method.parameters_for("distill"))
    got = torch.autograd.grad(loss, student, retain_graph=True)
    teacher = list(method.parameters_for("finetune"))
    assert set(torch.autograd.grad(loss, teacher, allow_unused=True)) == {None}
    with torch.no_grad():
        taught = method.network("finetune").eval()(x) / 0.5
    logits = method.student_head(method.student(x)) / 0.5
    divergence = 0.5**2 * nn.functional.kl_div(
        logits.log_softmax(1), taught.log_softmax(1), reduction="batchmean", log_target=True
    )
    wanted = torch.autograd.grad(divergence, student)
    # The loss is taken in float32 at least; here it is handed float64 and goes back to float32.
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("epochs", [3, 10, 100])
def test_a_phase_without_an_epoch_is_refused(epochs: int) -> None:
    """The paper's 800 + 3 + 400 leave no epoch of fine-tuning to so short a run."""
    with pytest.raises(BenchError, match="phase finetune; set more epochs, or phase_epochs"):
        method_config(SimCLRv2, "simclr_v2", "paper", {"labels": 0.1, "epochs": epochs})
    method_config(SimCLRv2, "simclr_v2", "paper", {"epochs": epochs})


def test_labels_are_declared_where_they_are_used() -> None:
    assert build(labels=0.0).phases == ("main",) and not build(labels=0.0).uses_labels
    assert build().uses_labels
