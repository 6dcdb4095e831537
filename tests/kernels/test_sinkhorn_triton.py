"""The Triton kernels of Sinkhorn's iteration against the reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from compiled import usage
from torch import Tensor

from bench import rng
from bench.kernels import Teacher, dispatch, sinkhorn_center

pytest.importorskip("triton", reason="Triton is not installed here")
from bench.kernels.sinkhorn import triton as passes

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
# Of the centre, which is as large as the scores: those are at most 1.
TOLERANCE = {torch.float64: 1e-14} | dict.fromkeys(NAMES, 1e-6)


def cosines(rows: int, prototypes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = rng.generator("sinkhorn", rows, prototypes)
    scores = 2 * torch.rand(rows, prototypes, generator=draw, dtype=torch.float64) - 1
    return scores.to(DEVICE, dtype)


def check(scores: Tensor, temperature: float = 0.05, iterations: int = 3) -> None:
    with dispatch.using("triton") as ran:
        got = sinkhorn_center(scores, temperature, iterations)
    assert ran == {"sinkhorn": "triton"}
    with dispatch.using("reference"):
        expected = sinkhorn_center(scores.double(), temperature, iterations)
    assert got.dtype == torch.promote_types(scores.dtype, torch.float32)
    tolerance = TOLERANCE[scores.dtype]
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("rows", [1, 65])
@pytest.mark.parametrize("prototypes", [1, 63, 65, 127, 1000, 1024])
def test_any_size(rows: int, prototypes: int, dtype: torch.dtype) -> None:
    check(cosines(rows, prototypes, dtype))


@pytest.mark.parametrize(("rows", "prototypes"), [(300, 70), (10, 2100)])
def test_several_stretches_are_combined(rows: int, prototypes: int) -> None:
    check(cosines(rows, prototypes, torch.float32))


def test_more_stretches_than_are_combined_at_a_time() -> None:
    scores = cosines(17 * passes.DEPTH, 3)
    got = passes.column_sums(scores, None, 0.05)
    torch.testing.assert_close(got, (scores / 0.05).logsumexp(0), rtol=1e-14, atol=0)


@pytest.mark.parametrize("iterations", [1, 2, 7])
@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_any_temperature_and_number_of_iterations(temperature: float, iterations: int) -> None:
    check(cosines(33, 50, torch.float32), temperature, iterations)


def test_columns_and_rows_that_are_far_from_all_and_empty_ones() -> None:
    scores = cosines(64, 16, torch.float32)
    scores[:, 3] = -1
    scores[5] = -1
    scores[6], scores[7, 2] = 1, 1
    check(scores, 0.01)
    scores[:, 4] = -math.inf
    check(scores, 0.01)
    with dispatch.using("triton"):
        plan = Teacher(scores, 0.01, sinkhorn_center(scores, 0.01)).probabilities()
        assert plan.isfinite().all() and (plan[:, 4] == 0).all()
        scores[8] = -math.inf
        assert sinkhorn_center(scores, 0.01).isfinite().all()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_no_rows_and_no_prototypes(shape: tuple[int, int]) -> None:
    with dispatch.using("triton"):
        center = sinkhorn_center(torch.zeros(shape, device=DEVICE), 0.1)
    assert center.shape == shape[1:] and center.isfinite().all()


@pytest.mark.parametrize(("rows", "prototypes"), [(30, 20), (16, 1024)])
def test_nothing_outside_the_scores_is_read(rows: int, prototypes: int) -> None:
    scores = cosines(rows, prototypes)
    buffer = scores.new_full((rows + 9, prototypes + 9), torch.nan)
    window = buffer[4 : rows + 4, 4 : prototypes + 4]
    window.copy_(scores)
    with dispatch.using("triton"):
        expected = sinkhorn_center(scores, 0.05)
        torch.use_deterministic_algorithms(True)  # memory that is not written to is NaN
        try:
            assert torch.equal(sinkhorn_center(window, 0.05), expected)
            across = scores.T.contiguous().T  # a row is not in one piece
            assert torch.equal(sinkhorn_center(across, 0.05), expected)
        finally:
            torch.use_deterministic_algorithms(False)


def test_the_same_bits_every_time() -> None:
    deep, long = cosines(300, 130, torch.float16), cosines(5, 1100, torch.float16)
    scales = cosines(1, 1100, torch.float32)[0]
    columns = [passes.column_sums(deep, None, 0.05) for _ in range(10)]
    rows = [passes.row_sums(long, scales, 0.05) for _ in range(10)]
    assert all(torch.equal(x, columns[0]) for x in columns)
    assert all(torch.equal(x, rows[0]) for x in rows)


def test_no_gradient_flows_and_nan_is_not_hidden() -> None:
    scores = cosines(4, 3).requires_grad_()
    with dispatch.using("triton"):
        assert not sinkhorn_center(scores, 0.05).requires_grad
        spoilt = scores.detach().clone()
        spoilt[1, 1] = torch.nan
        assert sinkhorn_center(spoilt, 0.05).isnan().all()


def test_custom_ops_are_told_rightly_to_the_compiler() -> None:
    scores = cosines(5, 6)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(passes.column_sums, (scores, None, 0.1), test_utils=tests)
    torch.library.opcheck(passes.column_sums, (scores, scores[:, 0], 0.1), test_utils=tests)
    torch.library.opcheck(passes.row_sums, (scores, scores[0], 0.1), test_utils=tests)


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_torch_compile_takes_it_whole_and_at_any_size() -> None:
    torch.compiler.reset()
    compiled = torch.compile(sinkhorn_center, fullgraph=True, backend="aot_eager")
    for count in (5, 7, 9):
        scores = cosines(count, 6)
        with dispatch.using("triton"):
            torch.testing.assert_close(compiled(scores, 0.05), sinkhorn_center(scores, 0.05))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(NAMES))
def test_they_compile_for_gpus_without_spilling(dtype: torch.dtype) -> None:
    module = "bench.kernels.sinkhorn.triton"
    vectors = dict.fromkeys(("rows", "columns", "bests", "sums", "out"), "*fp32")
    whole = dict.fromkeys(("n", "k", "scores_n", "count", "parts"), "i32")
    types = {"scores": f"*{NAMES[dtype]}", "scale": "fp64", **vectors, **whole}
    over = {"ACC": "tl.float32", "BN": passes.ROWS, "EVEN": True}
    kernels = {
        "_row_sums": over | {"BK": passes.WIDTH},
        "_column_sums": over | {"BK": passes.COLUMNS, "DEPTH": passes.DEPTH},
        "_combined": {"ACC": "tl.float32", "BLOCK": 128, "PARTS": 16, "END": 32},
    }
    for kernel, constants in kernels.items():
        took = usage(module, kernel, types, constants, 1, 3)
        assert took.stack == 0 and took.shared <= 1024


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prototypes", [65536, 3000, 8191])
def test_real_sizes(dtype: torch.dtype, prototypes: int) -> None:
    check(cosines(2000, prototypes, dtype))
