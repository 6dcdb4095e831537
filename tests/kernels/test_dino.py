"""DINO's loss against lightly's and against the official code's loops, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import DINOLoss
from torch import Tensor

from bench import rng
from bench.errors import BenchError
from bench.kernels import Teacher, dino
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
    assert dino(student, Teacher.of(targets), 0.1).item() == pytest.approx(
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
        got = dino(student, center.teacher(teacher, TEACHER), STUDENT)
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
        gradients = [torch.autograd.grad(loss, student)[0] for loss in (got, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(center.mean, theirs.center[0, 0], rtol=1e-14, atol=1e-16)


def test_gradients_are_numerically_right_and_leave_the_teacher_alone() -> None:
    student, teacher = logits(4, "student").requires_grad_(), logits(2, "teacher").requires_grad_()
    targets = Teacher(teacher, 0.5, logits(1, "center")[0, 0].requires_grad_())
    assert torch.autograd.gradcheck(lambda x: dino(x, targets, 0.3), student)
    dino(student, targets, 0.1).backward()
    assert teacher.grad is None


def test_half_precision_is_raised_to_float32() -> None:
    student, teacher = logits(4, "student").bfloat16(), logits(2, "teacher").bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = dino(student, Teacher(teacher, 0.1), 0.1)
    assert got.dtype == torch.float32
    expected = dino(student.float(), Teacher(teacher.float(), 0.1), 0.1)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "told"),
    [
        ((4, 5, 7), (2, 5, 6), 0.1, r"logits \(4, 5, 7\) and \(2, 5, 6\) .* do not fit"),
        ((4, 5, 7), (2, 4, 7), 0.1, "do not fit"),
        ((2, 5, 7), (3, 5, 7), 0.1, "do not fit"),
        ((1, 5, 7), (1, 5, 7), 0.1, "do not fit"),  # no other view
        ((5, 7), (5, 7), 0.1, "do not fit"),
        ((4, 5, 7), (2, 5, 7), 0.0, "above 0"),
    ],
)
def test_what_has_no_pairs_is_refused_in_one_line(
    student: tuple[int, ...], teacher: tuple[int, ...], temperature: float, told: str
) -> None:
    with pytest.raises(BenchError, match=told) as error:
        dino(torch.zeros(student), Teacher(torch.zeros(teacher)), temperature)
    assert "\n" not in str(error.value)


def test_a_teachers_parts_are_its_probabilities_parts() -> None:
    center = torch.randn(2, 7, dtype=torch.float64)
    teacher = Teacher(logits(2, "teacher"), 0.3, center)
    whole = teacher.probabilities()
    expected = ((teacher.logits - center[:, None]) / 0.3).softmax(-1)
    torch.testing.assert_close(whole, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(teacher.view(1).probabilities(), whole[1], rtol=0, atol=0)
    torch.testing.assert_close(teacher.rows(3).probabilities(), whole[:, :3], rtol=0, atol=0)
    torch.testing.assert_close(Teacher.of(whole).probabilities(), whole, rtol=1e-13, atol=0)
