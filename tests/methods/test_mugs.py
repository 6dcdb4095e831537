"""Mugs' three losses against the official loops in float64; queues, neighbours, bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import backbones, conformance, engine, rng
from bench.errors import BenchError
from bench.kernels import Teacher
from bench.nn.granularity import Projectors, contrast, group, nearest
from bench.progress import Reporter
from bench.resolve import method_config
from methods.mugs import Mugs

N, D = 3, 4


def build(backbone: str = Mugs.default_backbone, **settings: Any) -> Mugs:
    cfg = method_config(Mugs, "mugs", "toy", {"epochs": 2, "batch_size": 16} | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = backbones.build(backbone, conformance.SIZE)
        return Mugs(cfg, network, conformance.toy_info())


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng.generator("mugs", *shape), dtype=torch.float64)


def official(student: Tensor, teacher: Tensor, pair: Any) -> float:
    """src/loss.py: each teacher's view with every other; crops of both sizes have half each."""
    sums, terms = [0.0, 0.0], [0, 0]
    for given in range(2):
        for view in range(len(student)):
            if view == given:
                continue
            for row in range(N):
                sums[view >= 2] += pair(student[view, row], teacher[given, row]) / N
            terms[view >= 2] += 1
    means = [total / count for total, count in zip(sums, terms, strict=True) if count]
    return sum(means) / len(means)


def cross_entropy(logits: list[float], target: list[float]) -> float:
    log_sum = math.log(sum(math.exp(value) for value in logits))
    return sum(share * (log_sum - value) for share, value in zip(target, logits, strict=True))


@pytest.mark.parametrize("local", [0, 1, 3])
def test_contrast_is_the_official_loop(local: int) -> None:
    query, key = F.normalize(draw(2 + local, N, D), dim=2), F.normalize(draw(2, N, D), dim=2)
    queue = F.normalize(draw(5, D), dim=1)

    def pair(one: Tensor, two: Tensor) -> float:
        logits = [(one @ other / 0.2).item() for other in (two, *queue)]
        return cross_entropy(logits, [1.0] + [0.0] * len(queue))

    expected = official(query, key, pair)
    assert contrast(query, key, queue, 0.2).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("local", [0, 1, 3])
def test_group_is_the_official_loop(local: int) -> None:
    student, targets = draw(2 + local, N, 6), draw(2, N, 6).softmax(2)

    def pair(one: Tensor, two: Tensor) -> float:
        return cross_entropy((one / 0.1).tolist(), two.tolist())

    expected = official(student, targets, pair)
    assert group(student, Teacher.of(targets), 0.1).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_are_right_and_leave_keys_and_targets_alone() -> None:
    student = F.normalize(draw(3, N, D), dim=2).requires_grad_()
    key, queue = draw(2, N, D).requires_grad_(), F.normalize(draw(5, D), dim=1)
    assert torch.autograd.gradcheck(lambda x: contrast(x, key.detach(), queue, 0.2), student)
    logits = draw(2, N, D).requires_grad_()
    targets = Teacher(logits)
    assert torch.autograd.gradcheck(lambda x: group(x, targets, 0.1), student)
    loss = contrast(student, key, queue, 0.2) + group(student, targets, 0.1)
    loss.backward()
    assert key.grad is None and logits.grad is None


def test_neighbours_are_the_nearest_rows_by_cosine() -> None:
    tokens, memory = draw(2, N, D), F.normalize(draw(7, D), dim=1)
    found = nearest(tokens, memory, 3)
    for view in range(2):
        for row in range(N):
            closeness = F.cosine_similarity(tokens[view, row][None], memory).tolist()
            order = sorted(range(7), key=lambda at, by=closeness: -by[at])[:3]
            torch.testing.assert_close(found[view, row], memory[order])


def test_a_view_is_joined_with_its_own_neighbours_and_their_length_does_not_matter() -> None:
    projectors = Projectors(D, 64, 8, 5, neighbors=2).double().eval()
    memory = F.normalize(draw(9, 64), dim=1)
    views, tokens = draw(2, N, D), memory[:6].view(2, N, 64) + 0.01 * draw(2, N, 64)
    instance, local = projectors(views, tokens, memory)
    for view in range(2):
        for row in range(N):
            token = tokens[view, row]
            order = (memory @ token).topk(2).indices
            joined = torch.stack([token, *(3.0 * memory[order])])
            expected = projectors.local(projectors.norm(projectors.block(joined[None])[:, 0]))[0]
            torch.testing.assert_close(
                local[view, row], expected / expected.norm(), rtol=2e-3, atol=2e-3
            )
            whole = projectors.instance(views[view, row])
            torch.testing.assert_close(instance[view, row], whole / whole.norm())
    changed = memory.clone()
    changed[int((memory @ tokens[0, 0]).argmax())] *= -1
    moved = (projectors(views, tokens, changed)[1] - local).norm(dim=2)
    assert moved[0, 0] > 1e-3


@pytest.mark.parametrize("backbone", ["vit_nano_patch8", "small"])
def test_queues_take_the_teachers_keys_in_turn(tmp_path: Path, backbone: str) -> None:
    method = build(backbone)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    cfg = engine.EngineConfig(device="cpu", precision="32")
    quiet, split = Reporter(quiet=True), conformance.toy_split()
    engine.fit(method, split, cfg, seed=0, folder=tmp_path, reporter=quiet, stop_after=1)
    after = method.state_dict()
    pushed = {"instance_queue": 32, "local_queue": 32, "memory": 16, "teacher_memory": 16}
    for name, count in pushed.items():
        old, new = before[f"{name}.rows"], after[f"{name}.rows"]
        assert after[f"{name}.at"] == count
        assert not (old[:count] == new[:count]).all(1).any()
        assert torch.equal(old[count:], new[count:])
        torch.testing.assert_close(new.norm(dim=1), torch.ones(len(new)))


def test_the_loss_is_the_mean_of_its_parts_and_no_gradient_reaches_the_teacher() -> None:
    method = build().requires_grad_()
    step = conformance.step_at("main", 0)
    loss = method.loss(conformance.memorised(method), step)
    parts = [step.logged[f"{name}_loss"] for name in ("instance", "local", "group")]
    torch.testing.assert_close(loss, torch.stack(parts).mean())
    loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith("teacher"), name


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"queue": 48}, "no multiple of the batch"),
        ({"queue": 32, "neighbors": 40}, "no 40 neighbors in a queue of 32"),
    ],
)
def test_bad_queues_are_one_line(bad: dict[str, int], told: str) -> None:
    with pytest.raises(BenchError, match=told) as error:
        build(**bad)
    assert "\n" not in str(error.value)
