"""iBOT's cross-entropy on masked patches against lightly's and a loop."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import IBOTPatchLoss
from torch import Tensor

from bench import rng
from bench.errors import BenchError
from bench.kernels import Teacher, ibot

PICTURES, PATCHES, PROTOTYPES = 5, 6, 7


def draw(*shape: int) -> Tensor:
    source = rng.generator("ibot", *shape)
    return torch.randn(shape, generator=source, dtype=torch.float64)


def masked() -> Tensor:
    """`[5, 6]`: one picture without mask, one wholly masked."""
    mask = draw(PICTURES, PATCHES) > 0
    mask[1], mask[3] = False, True
    return mask


def weights(mask: Tensor) -> Tensor:
    mask = mask.double()
    return (mask / mask.sum(1, keepdim=True).clamp(min=1) / len(mask)).flatten()


def test_it_is_lightlys_and_so_is_its_gradient() -> None:
    mask = masked()
    ours = draw(PICTURES * PATCHES, PROTOTYPES).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    logits = draw(PICTURES * PATCHES, PROTOTYPES + 1)[:, 1:]
    one = ibot(ours, Teacher(logits, 0.07), weights(mask), 0.1)
    loss = IBOTPatchLoss(PROTOTYPES, teacher_temp=0.07, student_temp=0.1)
    chosen = mask.flatten()
    # Theirs is given the masked patches only, and a grid of patches.
    two = loss(logits[chosen], theirs[chosen], mask.view(PICTURES, 2, 3))
    torch.testing.assert_close(one, two, rtol=1e-6, atol=0)  # their temperature is a float32
    one.backward()
    two.backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
    assert (ours.grad[~chosen] == 0).all()


def test_it_is_a_loop_over_masked_patches() -> None:
    mask = masked()
    student = draw(PICTURES * PATCHES, PROTOTYPES)
    teacher = draw(PICTURES * PATCHES, PROTOTYPES).softmax(1)
    total = 0.0
    for picture in range(PICTURES):
        chosen = [p for p in range(PATCHES) if mask[picture, p]]
        for patch in chosen:
            row = picture * PATCHES + patch
            logits = [value / 0.1 for value in student[row].tolist()]
            norm = math.log(sum(math.exp(value) for value in logits))
            cross = -sum(p * (v - norm) for p, v in zip(teacher[row].tolist(), logits, strict=True))
            total += cross / len(chosen) / PICTURES
    assert ibot(student, Teacher.of(teacher), weights(mask), 0.1).item() == pytest.approx(
        total, rel=1e-12
    )


def test_the_gradient_is_that_of_finite_differences_and_stops_at_the_teacher() -> None:
    student = draw(4, 3).requires_grad_()
    logits = draw(4, 3).requires_grad_()
    teacher = Teacher(logits, 0.5)
    weight = torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=torch.float64)
    torch.autograd.gradcheck(lambda x: ibot(x, teacher, weight, 0.3), student)
    ibot(student, teacher, weight, 0.3).backward()
    assert logits.grad is None and student.grad is not None


def test_half_precision_is_raised_inside_autocast() -> None:
    student, logits = draw(8, PROTOTYPES).bfloat16(), draw(8, PROTOTYPES + 1)[:, 1:].bfloat16()
    weight = torch.full((8,), 1 / 8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ibot(student, Teacher(logits, 0.1), weight, 0.1)
    assert loss.dtype == torch.float32
    exact = ibot(student.double(), Teacher(logits.double(), 0.1), weight.double(), 0.1)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)


def test_each_patch_may_have_another_for_target() -> None:
    student, logits = draw(5, 4), draw(3, 4)
    weight, index = draw(5).abs(), torch.tensor([2, 0, 0, 1, 2])
    expected = ibot(student, Teacher(logits[index], 0.1), weight, 0.2)
    got = ibot(student, Teacher(logits, 0.1), weight, 0.2, index)
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("student", "teacher", "weight", "index"),
    [
        ((5, 4), (6, 4), 5, None),
        ((5, 4), (5, 3), 5, None),
        ((5, 4), (5, 4), 4, None),
        ((5, 4), (6, 4), 5, 6),
        ((1, 5, 4), (1, 5, 4), 5, None),
    ],
)
def test_patches_that_do_not_fit_are_refused_in_one_line(
    student: tuple[int, ...], teacher: tuple[int, ...], weight: int, index: int | None
) -> None:
    to = None if index is None else torch.zeros(index, dtype=torch.long)
    with pytest.raises(BenchError, match="do not fit") as error:
        ibot(torch.zeros(student), Teacher(torch.zeros(teacher)), torch.ones(weight), 0.1, to)
    assert "\n" not in str(error.value)
