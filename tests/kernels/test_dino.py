"""DINO's loss against lightly's and against the official code's loops, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import DINOLoss
from torch import Tensor

from bench import rng
from bench.kernels import dino
from bench.nn.prototypes import Center

STUDENT, TEACHER = 0.125, 0.0625  # temperatures, exact in float32 too: lightly keeps one there


def logits(views: int, name: str) -> Tensor:
    draw = rng.generator("dino", name)
    return torch.randn(views, 5, 7, generator=draw, dtype=torch.float64)


def loops(student: Tensor, targets: Tensor, temperature: float) -> float:
    """main_dino.py: every teacher's view with every other view, one number at a time."""
    total, terms = 0.0, 0
    for given, rows in enumerate(targets.tolist()):
        for view, answers in enumerate(student.tolist()):
            if view == given:
                continue
            terms += 1
            for target, answer in zip(rows, answers, strict=True):
                log_sum = math.log(sum(math.exp(value / temperature) for value in answer))
                total -= sum(
                    share * (value / temperature - log_sum)
                    for share, value in zip(target, answer, strict=True)
                ) / len(rows)
    return total / terms


@pytest.mark.parametrize(("views", "shared"), [(2, 2), (6, 2), (4, 1), (3, 3)])
def test_it_is_the_mean_over_pairs_of_different_views(views: int, shared: int) -> None:
    student, targets = logits(views, "student"), logits(shared, "teacher").softmax(-1)
    assert dino(student, targets, 0.1).item() == pytest.approx(
        loops(student, targets, 0.1), rel=1e-12
    )


@pytest.mark.parametrize("views", [2, 6])
def test_value_gradient_and_centre_are_lightlys_over_steps(views: int) -> None:
    theirs = DINOLoss(7, 0.0625, TEACHER, 0, student_temp=STUDENT, center_momentum=0.9).double()
    center = Center(7, 0.9).double()
    for step in range(3):
        student = logits(views, f"student {step}").requires_grad_()
        teacher = logits(2, f"teacher {step}")
        expected = theirs(list(teacher), list(student))
        targets = center.probabilities(teacher, TEACHER)
        center.update(teacher)
        got = dino(student, targets, STUDENT)
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
        gradients = [torch.autograd.grad(loss, student)[0] for loss in (got, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(center.mean, theirs.center[0, 0], rtol=1e-14, atol=1e-16)


def test_gradients_are_numerically_right_and_leave_the_teacher_alone() -> None:
    student, teacher = logits(4, "student").requires_grad_(), logits(2, "teacher").requires_grad_()
    targets = teacher.softmax(-1)
    assert torch.autograd.gradcheck(lambda x: dino(x, targets, 0.3), student)
    dino(student, targets, 0.1).backward()
    assert teacher.grad is None


def test_half_precision_is_raised_to_float32() -> None:
    student, targets = logits(4, "student").bfloat16(), logits(2, "teacher").softmax(-1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = dino(student, targets, 0.1)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, dino(student.float(), targets.float(), 0.1), rtol=0, atol=0)
