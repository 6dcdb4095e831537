"""Barlow Twins and VICReg's covariance by the kernel, against the references in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from choices import DEVICE, by, error, poisoned, window
from compiled import usage
from sizes import compiles_for_any
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench import rng
from bench.kernels import barlow_twins, covariance_penalty, dispatch

pytest.importorskip("triton", reason="Triton is not installed here")
from bench.kernels.cross_correlation import triton as kernels

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 5e-2}
LOSSES: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "barlow_twins": (2, lambda a, b: barlow_twins(a, b, 0.05)),
    "covariance_penalty": (1, covariance_penalty),
}
every_loss = pytest.mark.parametrize("name", list(LOSSES))
# Fewer rows than dimensions, and more: from the rows' side and from the dimensions'.
either_side = pytest.mark.parametrize(("rows", "dims"), [(7, 20), (20, 7)])


def drawn(name: str, rows: int, dims: int) -> list[Tensor]:
    """Embeddings, correlated, off centre and of uneven scale, float64."""
    draw = rng.generator("cross", rows, dims)
    shared = torch.randn(rows, dims, dtype=torch.float64, generator=draw)
    scale = torch.rand(dims, dtype=torch.float64, generator=draw) * 3 + 0.1
    noise = torch.randn(LOSSES[name][0], rows, dims, dtype=torch.float64, generator=draw)
    return [((shared + 0.5 * each) * scale + 2).to(DEVICE) for each in noise]


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("rows", "dims"), [(2, 3), (3, 5), (63, 65), (65, 63), (127, 9), (9, 127), (40, 200)]
)
def test_values_and_gradients_at_any_size(
    name: str, dtype: torch.dtype, rows: int, dims: int
) -> None:
    inputs = [x.to(dtype) for x in drawn(name, rows, dims)]
    got = by("triton", LOSSES[name][1], inputs)
    assert got[0].dtype == torch.promote_types(dtype, torch.float32)
    assert all(g.dtype == dtype for g in got[1:])
    assert error(LOSSES[name][1], inputs) < TOLERANCE[dtype]


@every_loss
@either_side
def test_halves_are_multiplied_as_such(
    name: str, rows: int, dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bfloat16 is: float16 in its stead, which the interpreter has too."""
    monkeypatch.setattr("bench.kernels.cross_correlation._factors", lambda x: torch.float16)
    inputs = [x.half() for x in drawn(name, rows, dims)]
    assert error(LOSSES[name][1], inputs) < 1e-2


@every_loss
@pytest.mark.parametrize(("rows", "dims"), [(128, 64), (64, 128)])
def test_large_float16_embeddings(name: str, rows: int, dims: int) -> None:
    """Correlated and of deviation 16: sums of their products are beyond float16."""
    draw = rng.generator("large", rows, dims)
    shape = (LOSSES[name][0], rows, 1)
    shared = torch.randn(shape, generator=draw, dtype=torch.float64)
    noise = torch.randn(*shape[:2], dims, generator=draw, dtype=torch.float64)
    inputs = [(16 * each).half() for each in (shared + 0.1 * noise).to(DEVICE)]
    assert all(x.isfinite().all() for x in by("triton", LOSSES[name][1], inputs))
    assert error(LOSSES[name][1], inputs) < TOLERANCE[torch.float16]


def test_one_dimension_has_no_other() -> None:
    one, two = drawn("barlow_twins", 5, 1)
    assert by("triton", covariance_penalty, [one])[0] == 0
    expected = by("reference", lambda a, b: barlow_twins(a, b, 0.0), [one, two])
    torch.testing.assert_close(by("triton", LOSSES["barlow_twins"][1], [one, two]), expected)


@every_loss
@pytest.mark.parametrize(("rows", "dims"), [(3, 6), (6, 3)])
def test_gradients_are_those_of_finite_differences(name: str, rows: int, dims: int) -> None:
    inputs = [x.requires_grad_() for x in drawn(name, rows, dims)]
    with dispatch.using("triton"):
        assert torch.autograd.gradcheck(LOSSES[name][1], inputs)


@every_loss
@either_side
def test_nothing_outside_the_tensors_is_read(name: str, rows: int, dims: int) -> None:
    inputs = [x.float() for x in drawn(name, rows, dims)]
    expected = by("triton", LOSSES[name][1], inputs)
    got = by("triton", LOSSES[name][1], [window(x) for x in inputs])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)  # means may round otherwise


def arguments(case: str) -> tuple[Tensor, Tensor | None, Tensor | None, int, bool, str]:
    """Of `squared_product`, one of each use, within buffers of NaN."""
    draw = rng.generator("product")
    x, y = (window(t) for t in torch.randn(2, 70, 33, generator=draw).to(DEVICE))
    return {
        "across": (x.T, y.T, None, 70, False, "ieee"),
        "covariances": (x.T, None, None, 70, False, "ieee"),
        "grams": (x, None, y, 70, True, "ieee"),
        "gram": (x, None, None, 70, True, "ieee"),
    }[case]


every_use = pytest.mark.parametrize("case", ["across", "covariances", "grams", "gram"])


@every_use
def test_products_are_whole_and_their_squares_summed(case: str) -> None:
    """Every number of the matrices is written, in both halves of symmetric ones."""
    x, y, u, count, diagonal, dot = arguments(case)
    with poisoned():
        total, first, *rest = kernels.squared_product(x, y, u, count, diagonal, dot)
    expected = x.double() @ (x if y is None else y).double().T / count
    if not diagonal:
        expected.fill_diagonal_(0)
    torch.testing.assert_close(first.double(), expected, rtol=1e-5, atol=1e-6)
    other = expected if u is None else u.double() @ u.double().T / count
    for each in rest:
        torch.testing.assert_close(each.double(), other, rtol=1e-5, atol=1e-6)
    assert total.item() == pytest.approx((expected * other).sum().item(), rel=1e-5)


@every_use
def test_custom_ops_are_told_rightly_to_the_compiler(case: str) -> None:
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(kernels.squared_product, arguments(case), test_utils=tests)


@every_loss
@either_side
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_bits_every_time(name: str, rows: int, dims: int, dtype: torch.dtype) -> None:
    inputs = [x.to(dtype) for x in drawn(name, rows, dims)]
    first = by("triton", LOSSES[name][1], inputs)
    for _ in range(9):
        again = by("triton", LOSSES[name][1], inputs)
        torch.testing.assert_close(again, first, rtol=0, atol=0)


@every_loss
@either_side
@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_torch_compile_takes_it_whole_and_at_any_size(name: str, rows: int, dims: int) -> None:
    sizes = [(rows + more, dims + more) for more in (0, 1, 3)]
    cases = [[x.float() for x in drawn(name, *size)] for size in sizes]
    compiles_for_any(LOSSES[name][1], cases)


@every_loss
def test_what_is_kept_is_the_smaller_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the factors' type from the dimensions' side; Gram matrices in float32."""
    monkeypatch.setattr("bench.kernels.cross_correlation._factors", lambda x: torch.float16)

    def kept(rows: int, dims: int) -> set[tuple[torch.dtype, int]]:
        matrices = set[tuple[torch.dtype, int]]()

        def pack(x: Tensor) -> Tensor:
            if x.dim() == 2 and x.shape[0] == x.shape[1]:
                matrices.add((x.dtype, len(x)))
            return x

        with dispatch.using("triton"), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            LOSSES[name][1](*(x.half().requires_grad_() for x in drawn(name, rows, dims)))
        return matrices

    assert kept(30, 10) == {(torch.float16, 10)}
    assert kept(10, 30) == {(torch.float32, 10)}


def test_their_operations_are_counted() -> None:
    """6 N D^2 or 6 N^2 D for Barlow Twins, of which symmetric products are half."""
    for rows, dims in ((9, 5), (5, 9)):
        inputs = [x.float().requires_grad_() for x in drawn("barlow_twins", rows, dims)]
        with dispatch.using("triton"), FlopCounterMode(display=False) as counter:
            barlow_twins(*inputs, 0.1).backward()
        assert counter.get_total_flops() == 6 * 9 * 5 * 5


@pytest.mark.slow
@every_use
@pytest.mark.parametrize(
    ("dtype", "dot"),
    [("bf16", "tf32x3"), ("fp32", "tf32x3"), ("fp32", "ieee"), ("fp64", "ieee")],
)
@pytest.mark.parametrize(("capability", "size"), [(90, "i32"), (86, "i32:16")])
def test_they_compile_for_gpus_without_spilling(
    case: str, dtype: str, dot: str, capability: int, size: str
) -> None:
    """At any size, and at multiples of 16 in the 99 KiB of shared memory of an RTX 30."""
    rows_side = case in ("grams", "gram")
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[dtype]
    sums = "fp64" if dtype == "fp64" else "fp32"
    tiles = kernels._tiles(kind, rows_side, case == "grams")
    near, far = ("l", "r") if rows_side else ("r", "l")
    stored = f"*{sums}" if rows_side else f"*{dtype}"
    types = dict.fromkeys("xyu", f"*{dtype}") | {"totals": f"*{sums}", "count": size}
    types |= {"first": stored, "second": stored}
    types |= dict.fromkeys(("rows", "cols", "depth", *(f"{x}_{far}" for x in "xyu")), size)
    constants: dict[str, object] = {f"{x}_{near}": 1 for x in "xyu"}
    constants |= {"SYMMETRIC": case != "across", "PAIR": case == "grams", "DIAGONAL": rows_side}
    constants |= {"BR": tiles.side, "BC": tiles.side, "BL": tiles.depth, "GROUP": 8}
    constants |= {"DOT": dot, "ACC": f"tl.float{sums[2:]}"}
    took = usage(
        kernels.__name__, "_squared_product", types, constants,
        tiles.warps, tiles.stages, capability,
    )  # fmt: skip
    assert took.stack == 0
    assert took.shared <= 99 * 1024


@pytest.mark.gpu
@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "dims"), [(1024, 8192), (8192, 2048), (4096, 1000)])
def test_real_sizes(name: str, dtype: torch.dtype, rows: int, dims: int) -> None:
    inputs = [x.to(dtype) for x in drawn(name, rows, dims)]
    assert error(LOSSES[name][1], inputs) < TOLERANCE[dtype]
