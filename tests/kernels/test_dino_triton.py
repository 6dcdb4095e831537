"""The Triton kernels of DINO's and iBOT's losses against the references in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from compiled import usage
from lightly.loss import DINOLoss
from torch import Tensor

from bench import rng
from bench.errors import BenchError
from bench.kernels import Teacher, dino, dispatch, ibot

pytest.importorskip("triton", reason="Triton is not installed here")
from bench.kernels import soft_cross_entropy as core

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Of the largest gradient; the interpreter does not round to bfloat16 but cuts off.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
Loss = Callable[[Tensor, Teacher], Tensor]


def draw(*shape: int, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    source = rng.generator("soft targets", *shape)
    return (scale * torch.randn(shape, generator=source, dtype=torch.float64)).to(DEVICE, dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def teach(*shape: int, dtype: torch.dtype, center: str, temperature: float = 0.07) -> Teacher:
    """Of `[G, N, K]` or `[T, K]` logits; `center` is "none", "one", or "each" view's."""
    shapes = {"none": None, "one": shape[-1:], "each": (shape[0], shape[-1])}
    chosen = shapes[center]
    mean = None if chosen is None else draw(*chosen, dtype=wide(dtype), scale=0.5)
    return Teacher(draw(*shape, dtype=dtype)[..., :], temperature, mean)


def exact(teacher: Teacher) -> Teacher:
    center = None if teacher.center is None else teacher.center.double()
    return Teacher(teacher.logits.double(), teacher.temperature, center)


def both(loss: Loss, student: Tensor, teacher: Teacher) -> list[tuple[Tensor, Tensor]]:
    """Value and gradient by the kernel, each with that of the reference in float64."""
    made = []
    for choice in ("triton", "reference"):
        leaf = student.detach().requires_grad_()
        with dispatch.using(choice) as ran:
            if choice == "triton":
                value = loss(leaf, teacher)
            else:
                value = loss(leaf.double(), exact(teacher))
            made.append((value, *torch.autograd.grad(value, leaf)))
        assert set(ran.values()) == {choice}
    return list(zip(*made, strict=True))


def check(loss: Loss, student: Tensor, teacher: Teacher, looser: float = 1.0) -> None:
    (value, expected), (gradient, wanted) = both(loss, student, teacher)
    # A loss of nearly 0 is a difference of log-sum-exps that are not.
    slack = TOLERANCE[wide(student.dtype)] * looser
    torch.testing.assert_close(value.double(), expected.double(), rtol=slack, atol=slack)
    assert gradient.dtype == student.dtype and gradient.shape == student.shape
    error = (gradient.double() - wanted.double()).abs().max().item()
    assert error <= TOLERANCE[student.dtype] * looser * max(wanted.abs().max().item(), 1e-3)


def between_views(student: Tensor, teacher: Teacher) -> Tensor:
    return dino(student, teacher, 0.1)


def of_patches(student: Tensor, teacher: Teacher) -> Tensor:
    """With weights, of which every third is 0, and other patches' targets."""
    count, others = len(student), len(teacher.logits)
    weight = (torch.arange(count, device=student.device) % 3).to(wide(student.dtype)) / count
    index = (7 * torch.arange(count, device=student.device) + 1) % others
    return ibot(student, teacher, weight, 0.1, index)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("prototypes", [1, 63, 65, 127, 1000])
@pytest.mark.parametrize(
    ("views", "shared", "pictures", "center"),
    [(2, 2, 3, "none"), (5, 2, 2, "one"), (4, 3, 1, "each"), (3, 1, 2, "each")],
)
def test_dino_at_any_size(
    dtype: torch.dtype, prototypes: int, views: int, shared: int, pictures: int, center: str
) -> None:
    student = draw(views, pictures, prototypes, dtype=dtype)
    teacher = teach(shared, pictures, prototypes, dtype=dtype, center=center)
    check(between_views, student, teacher)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("prototypes", [1, 63, 65, 127, 1000])
@pytest.mark.parametrize(("patches", "center"), [(2, "none"), (7, "one")])
def test_ibot_at_any_size(dtype: torch.dtype, prototypes: int, patches: int, center: str) -> None:
    student = draw(patches, prototypes, dtype=dtype)
    teacher = teach(patches + 2, prototypes, dtype=dtype, center=center)
    check(of_patches, student, teacher)


@pytest.mark.parametrize("prototypes", [1024, 1500])  # whole stretches and a part of one
def test_several_stretches_are_combined(prototypes: int) -> None:
    teacher = teach(2, 2, prototypes, dtype=torch.float32, center="one")
    check(between_views, draw(12, 2, prototypes, dtype=torch.float32), teacher)
    teacher = teach(3, 5 * prototypes, dtype=torch.float32, center="one")
    check(of_patches, draw(3, 5 * prototypes, dtype=torch.float32), teacher)


@pytest.mark.parametrize("temperature", [1.0, 0.04, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_any_temperature(temperature: float, dtype: torch.dtype) -> None:
    """Of logits up to 4: exponents of 400, far beyond float32 but for the running maxima."""

    def loss(student: Tensor, teacher: Teacher) -> Tensor:
        return dino(student, teacher, temperature)

    teacher = teach(2, 2, 600, dtype=dtype, center="one", temperature=temperature)
    check(loss, draw(10, 2, 600, dtype=dtype), teacher, looser=max(0.1 / temperature, 1))


def test_hard_targets_leave_whole_stretches_without_any_mass() -> None:
    targets = torch.zeros(2, 2, 1200, dtype=torch.float64, device=DEVICE)
    targets[:, 0, 3] = targets[0, 1, 1100] = 1
    targets[1, 1, [5, 700]] = 0.5
    student = draw(10, 2, 1200)
    (value, expected), (gradient, wanted) = both(between_views, student, Teacher.of(targets))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, wanted)


def test_nan_logits_are_not_hidden() -> None:
    student, teacher = draw(3, 2, 9), teach(2, 2, 9, dtype=torch.float64, center="none")
    with dispatch.using("triton"):
        assert dino(
            student.index_fill(2, torch.tensor(4, device=DEVICE), torch.nan), teacher, 0.1
        ).isnan()
        teacher.logits[1, 0, 2] = torch.nan
        assert dino(student, teacher, 0.1).isnan()


def test_gradients_are_those_of_finite_differences() -> None:
    teacher = teach(2, 2, 5, dtype=torch.float64, center="one", temperature=0.5)
    patches = Teacher(*(teacher.view(1).logits, 0.5, teacher.center))
    with dispatch.using("triton"):
        student = draw(3, 2, 5).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: dino(x, teacher, 0.3), student)
        weight = torch.tensor([0.7, 0.0, 0.2], device=DEVICE, dtype=torch.float64)
        index = torch.tensor([1, 0, 1], device=DEVICE)
        student = draw(3, 5).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: ibot(x, patches, weight, 0.3, index), student)


def test_no_gradient_reaches_the_teacher() -> None:
    logits, center = draw(2, 2, 9).requires_grad_(), draw(9).requires_grad_()
    student = draw(3, 2, 9).requires_grad_()
    with dispatch.using("triton"):
        dino(student, Teacher(logits, 0.1, center), 0.1).backward()
    assert student.grad is not None and logits.grad is None and center.grad is None


def test_value_and_gradient_are_lightlys() -> None:
    student, teacher = draw(6, 5, 7).requires_grad_(), draw(2, 5, 7)
    theirs = DINOLoss(7, 0.0625, 0.0625, 0, student_temp=0.125).double().to(DEVICE)
    expected = theirs(list(teacher), list(student))
    with dispatch.using("triton"):
        got = dino(student, Teacher(teacher, 0.0625), 0.125)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def window(inside: Tensor) -> Tensor:
    """The same numbers in a buffer that is NaN all around them."""
    buffer = inside.new_full([side + 5 for side in inside.shape], torch.nan)
    place = tuple(slice(3, 3 + side) for side in inside.shape)
    buffer[place] = inside
    return buffer[place]


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is not yet written to is NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("prototypes", [33, 1024])
def test_nothing_outside_the_logits_is_read_and_everything_of_the_gradient_written(
    prototypes: int,
) -> None:
    views, given = draw(4, 3, prototypes), draw(2, 3, prototypes)
    center = draw(2, prototypes)
    cases: list[tuple[Loss, Tensor, Teacher, Teacher]] = [
        (between_views, views, Teacher(given, 0.1, center),
         Teacher(window(given), 0.1, window(center))),
        (of_patches, views[0], Teacher(given[0], 0.1, center[0]),
         Teacher(window(given)[0], 0.1, window(center)[0])),
    ]  # fmt: skip
    for loss, student, teacher, framed in cases:
        with dispatch.using("triton"):
            leaf = student.clone().requires_grad_()
            value = loss(leaf, teacher)
            (gradient,) = torch.autograd.grad(value, leaf)
            with poisoned():
                inside = window(student).requires_grad_()
                again = loss(inside, framed)
                (anew,) = torch.autograd.grad(again, inside)
        assert torch.equal(again, value) and torch.equal(anew, gradient)
        assert gradient.isfinite().all()


def test_patches_of_no_weight_are_not_read() -> None:
    student, teacher = draw(6, 40), teach(6, 40, dtype=torch.float64, center="one")
    weight = torch.tensor([0.5, 0, 0, 0.3, 0, 0.2], device=DEVICE, dtype=torch.float64)
    with dispatch.using("triton"), poisoned():
        leaf = student.clone().requires_grad_()
        value = ibot(leaf, teacher, weight, 0.1)
        (gradient,) = torch.autograd.grad(value, leaf)
        student[weight == 0] = torch.nan
        teacher.logits[weight == 0] = torch.nan
        leaf = student.requires_grad_()
        again = ibot(leaf, teacher, weight, 0.1)
        assert torch.equal(again, value)
        assert torch.equal(torch.autograd.grad(again, leaf)[0], gradient)
    assert (gradient[weight == 0] == 0).all() and (gradient[weight != 0] != 0).all()


def test_views_may_be_strided_in_any_way() -> None:
    student, given = draw(3, 4, 20), draw(2, 4, 20)
    center, weight = draw(20, 2)[:, 0], draw(2, 2).abs()[:, 0]
    odd = student.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # a row is not in one piece
    turned = given.transpose(0, 1).contiguous().transpose(0, 1)
    with dispatch.using("triton"):
        expected = dino(student, Teacher(given, 0.1), 0.1)
        assert torch.equal(dino(odd, Teacher(turned, 0.1), 0.1), expected)
        expected = ibot(given[:, 0], Teacher(given[:, 1], 0.1, center.clone()), weight.clone(), 0.1)
        got = ibot(given[:, 0], Teacher(given[:, 1], 0.1, center), weight, 0.1)
        assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_bits_every_time(dtype: torch.dtype) -> None:
    student = draw(10, 2, 1100, dtype=dtype).requires_grad_()
    teacher = teach(2, 2, 1100, dtype=dtype, center="one")
    made = []
    for _ in range(10):
        with dispatch.using("triton"):
            value = between_views(student, teacher)
            made.append((value, *torch.autograd.grad(value, student)))
    assert all(torch.equal(a, b) for again in made for a, b in zip(again, made[0], strict=True))


def test_autocast_does_not_change_it() -> None:
    student = draw(3, 2, 50, dtype=torch.bfloat16)
    teacher = teach(2, 2, 50, dtype=torch.bfloat16, center="one")
    with dispatch.using("triton"):
        expected = between_views(student, teacher)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            inside = between_views(student, teacher)
    assert inside.dtype == torch.float32 and torch.equal(inside, expected)


def test_no_probability_is_kept() -> None:
    """Beside the logits themselves, backward has a number for each row."""
    student = draw(10, 3, 1000, dtype=torch.float32).requires_grad_()
    teacher = teach(2, 3, 1000, dtype=torch.float32, center="one")
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with dispatch.using("triton"), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        between_views(student, teacher)
    given = [student, teacher.logits, teacher.center]
    for x in given:
        assert x is not None
        kept.pop(x.untyped_storage().data_ptr())
    assert sum(kept.values()) == 4 * 12 * 3


def test_custom_ops_are_told_rightly_to_the_compiler() -> None:
    student, teacher, center = draw(3, 2, 9), draw(2, 4, 9), draw(9)
    weight, index = draw(2), torch.tensor([3, 0], device=DEVICE)
    settings = (0.1, 0.07, False)
    tests = ("test_schema", "test_faketensor")
    inputs = (student, teacher, center, weight, index)
    torch.library.opcheck(core.soft_targets, (*inputs, *settings), test_utils=tests)
    loss, lse = core.soft_targets(*inputs, *settings)
    torch.library.opcheck(
        core.soft_targets_gradient, (loss, *inputs, lse, *settings), test_utils=tests
    )


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
@pytest.mark.parametrize("loss", [between_views, of_patches])
def test_torch_compile_takes_them_whole_and_at_any_size(loss: Loss) -> None:
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for count in (2, 5, 7):
        shape = (3, count, 9) if loss is between_views else (count, 9)
        teacher = teach(2, *shape[1:], dtype=torch.float32, center="one")
        if loss is of_patches:
            teacher = teach(*shape, dtype=torch.float32, center="one")
        student = draw(*shape, dtype=torch.float32).requires_grad_()
        with dispatch.using("triton"):
            expected = torch.autograd.grad(loss(student, teacher), student)
            got = torch.autograd.grad(compiled(student, teacher), student)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("choice", ["triton", "reference"])
def test_a_centre_of_another_shape_is_one_clear_line(choice: dispatch.Choice) -> None:
    student, teacher = draw(3, 2, 20), draw(2, 2, 20)
    for center in (draw(5), draw(1, 20), draw(3, 20)):
        with dispatch.using(choice), pytest.raises(BenchError, match="dino: a centre of"):
            dino(student, Teacher(teacher, 0.07, center), 0.1)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_an_index_beyond_the_teacher_is_an_error(wrong: int) -> None:
    student, index = draw(2, 9), torch.tensor([0, wrong], device=DEVICE)
    with dispatch.using("triton"), pytest.raises(RuntimeError, match="beyond the teacher"):
        ibot(student, Teacher(draw(4, 9)), torch.ones(2, device=DEVICE), 0.1, index)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["_soft_targets", "_gradient"])
@pytest.mark.parametrize(
    ("dtype", "views", "shared", "own"),
    [
        (torch.bfloat16, 12, 2, False),
        (torch.float32, 12, 2, False),
        (torch.bfloat16, 2, 2, False),
        (torch.bfloat16, 1, 1, True),
    ],
)
def test_they_compile_for_gpus_without_spilling(
    kernel: str, dtype: torch.dtype, views: int, shared: int, own: bool
) -> None:
    """For an H100: DINO's crops, two views, and iBOT's patches."""
    tile = core.tiles(*(torch.empty(n, 1, 65536, dtype=dtype) for n in (views, shared)))
    warps = tile.pop("num_warps")
    pointers = dict.fromkeys(("student", "teacher", "out"), f"*{NAMES[dtype]}")
    floats = dict.fromkeys(("center", "bests", "sums", "crosses", "grad", "lse"), "*fp32")
    scales = dict.fromkeys(("scale", "teacher_scale", "slope"), "fp64")
    whole = dict.fromkeys(("n", "k", "center_g"), "i32") | {
        f"{of}_{by}": "i32"
        for of, by in (("student", "v"), ("student", "n"), ("teacher", "g"), ("teacher", "n"))
    }
    weights = {"weight": "*fp32", "index": "*i64"} if own else {}
    constants = {**tile, "OWN": own, "ACC": "tl.float32"} | dict.fromkeys(
        {"weight", "index"} - weights.keys()
    )
    took = usage(
        "bench.kernels.soft_cross_entropy", kernel,
        pointers | floats | scales | whole | weights, constants, warps, 3,
    )  # fmt: skip
    assert took.stack == 0 and took.shared <= 1024


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prototypes", [65536, 3000, 8191])
def test_real_sizes(dtype: torch.dtype, prototypes: int) -> None:
    """64 pictures, 2 + 8 crops; and 2,000 patches."""
    teacher = teach(2, 64, prototypes, dtype=dtype, center="one", temperature=0.04)
    check(between_views, draw(10, 64, prototypes, dtype=dtype), teacher, looser=10)
    teacher = teach(2000, prototypes, dtype=dtype, center="one", temperature=0.04)
    check(of_patches, draw(2000, prototypes, dtype=dtype), teacher, looser=10)
