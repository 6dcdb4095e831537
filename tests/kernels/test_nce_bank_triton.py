"""Gathered dot products by the kernel, against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from choices import DEVICE, by, error, window
from compiled import usage
from sizes import compiles_for_any
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench import rng
from bench.kernels import bank_logits, dispatch

pytest.importorskip("triton", reason="Triton is not installed here")
from bench.kernels.nce_bank import triton as kernels

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def drawn(count: int, size: int, dim: int, asked: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of any length, a bank of unit vectors, and which of them; some more than once."""
    draw = rng.generator("nce", count, size, dim, asked)
    query = 3 * torch.randn(count, dim, generator=draw, dtype=torch.float64)
    bank = F.normalize(torch.randn(size, dim, generator=draw, dtype=torch.float64), dim=1)
    at = torch.randint(size, (count, asked), generator=draw)
    return query.to(DEVICE), bank.to(DEVICE), at.to(DEVICE)


def squares(bank: Tensor, at: Tensor) -> Callable[[Tensor], Tensor]:
    """A loss of queries through their logits, whose gradient has weights of its own for each."""
    weight = torch.arange(1, at.numel() + 1, device=at.device).view_as(at) / at.numel()
    return lambda query: (weight * bank_logits(query, bank.to(query.device), 0.07, at) ** 2).sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 9, 63, 65), (2, 50, 65, 127), (2, 2000, 5, 1000), (3, 20, 600, 7)]
)
def test_values_and_gradients_at_any_size(
    dtype: torch.dtype, shape: tuple[int, int, int, int]
) -> None:
    query, bank, at = drawn(*shape)
    assert error(squares(bank.to(dtype), at), [query.to(dtype)]) < TOLERANCE[dtype]


@pytest.mark.parametrize("kept", [torch.float32, torch.float16])
def test_banks_of_any_precision_take_float32_queries(kept: torch.dtype) -> None:
    query, bank, at = drawn(4, 30, 20, 9)
    bank = bank.to(kept)
    assert error(squares(bank, at), [query.float()]) < TOLERANCE[torch.float32]
    with dispatch.using("triton"):
        assert bank_logits(query.float(), bank, 0.07, at).dtype == torch.float32


def test_gradients_are_those_of_finite_differences_and_leave_the_bank_alone() -> None:
    query, bank, at = drawn(3, 6, 4, 5)
    query.requires_grad_()
    bank.requires_grad_()
    with dispatch.using("triton"):
        assert torch.autograd.gradcheck(lambda q: bank_logits(q, bank, 0.5, at), query)
        bank_logits(query, bank, 0.5, at).sum().backward()
    assert bank.grad is None


def test_nothing_outside_the_tensors_is_read() -> None:
    query, bank, at = drawn(5, 30, 20, 9)
    query, bank = query.float(), bank.float()
    expected = by("triton", squares(bank, at), [query])
    got = by("triton", squares(window(bank), window(at)), [window(query)])
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_rows_that_are_not_asked_for_do_not_matter() -> None:
    query, bank, at = drawn(5, 30, 20, 9)
    at = at.clamp(min=1)
    expected = by("triton", squares(bank, at), [query])
    bank[0] = float("nan")
    torch.testing.assert_close(by("triton", squares(bank, at), [query]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("outside", [-1, 30, 2**40, -(2**40)])
def test_rows_that_are_not_in_the_bank_are_not_read_but_told(outside: int) -> None:
    query, bank, at = drawn(3, 30, 20, 9)
    expected = by("triton", squares(bank, at), [query])[1]
    at[1, 4] = outside
    with dispatch.using("triton"):
        assert bank_logits(query, bank, 0.07, at).isnan().nonzero().tolist() == [[1, 4]]
    gradient = by("triton", squares(bank, at), [query])[1]
    assert gradient[1].isnan().all()
    assert torch.equal(gradient[::2], expected[::2])
    grad = torch.ones(at.shape, device=DEVICE)
    assert kernels.gathered_sum(grad, bank, at).isnan().all(1).tolist() == [False, True, False]


def test_the_same_bits_every_time_though_rows_repeat() -> None:
    query, bank, at = drawn(2, 3, 17, 1200)
    first = by("triton", squares(bank.float(), at), [query.float()])
    for _ in range(9):
        again = by("triton", squares(bank.float(), at), [query.float()])
        torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_custom_ops_are_told_rightly_to_the_compiler() -> None:
    query, bank, at = drawn(3, 9, 5, 4)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(kernels.gathered_dots, (query, bank.half(), at), test_utils=tests)
    grad = torch.ones(at.shape, device=DEVICE)
    torch.library.opcheck(kernels.gathered_sum, (grad, bank.half(), at), test_utils=tests)


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_torch_compile_takes_it_whole_and_at_any_size() -> None:
    bank = drawn(1, 9, 5, 1)[1].float()

    def loss(query: Tensor, share: Tensor) -> Tensor:
        at = (share.detach() * len(bank)).long()
        return (share * bank_logits(query, bank, 0.07, at) ** 2).sum()

    draw = rng.generator("sizes")
    shares = [torch.rand(n, n + 2, generator=draw).to(DEVICE) for n in (3, 4, 6)]
    compiles_for_any(loss, [(drawn(len(x), 9, 5, 1)[0].float(), x) for x in shares])
    torch.compile(lambda x: bank_logits(x, bank, 0.07), fullgraph=True, backend="eager")(bank)


def test_their_operations_are_counted() -> None:
    """2 N M D forward and as many backward."""
    query, bank, at = drawn(3, 9, 5, 4)
    with dispatch.using("triton"), FlopCounterMode(display=False) as counter:
        bank_logits(query.requires_grad_(), bank, 0.07, at).sum().backward()
    assert counter.get_total_flops() == 4 * 3 * 4 * 5


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["_gathered_dots", "_gathered_sum"])
@pytest.mark.parametrize(("dtype", "dim"), [("bf16", 128), ("fp32", 128), ("fp32", 2048)])
def test_they_compile_for_gpus_without_spilling(kernel: str, dtype: str, dim: int) -> None:
    rows, depth = kernels._tile(dim)
    of = "query" if kernel == "_gathered_dots" else "grad"
    strides = dict.fromkeys((f"{of}_n", "bank_k", "at_n", "m", "size"), "i32")
    pointers = {of: "*fp32", "bank": f"*{dtype}", "at": "*i64", "out": "*fp32"}
    ones = {"bank_d": 1, "at_m": 1, "query_d" if of == "query" else "grad_m": 1}
    constants = {"D": dim, "ACC": "tl.float32", "BM": rows, "BD": depth, "PART": kernels.PART}
    took = usage(kernels.__name__, kernel, pointers | strides, constants | ones, 4, 3)
    assert took.stack == 0


@pytest.mark.gpu
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_real_sizes(kept: torch.dtype) -> None:
    """InstDisc's: 4,096 rows of noise to each of 256 queries."""
    draw = rng.generator("nce, large")
    bank = F.normalize(torch.randn(2**18, 128, generator=draw), dim=1).to(DEVICE, kept)
    query = torch.randn(256, 128, generator=draw).to(DEVICE)
    at = torch.randint(len(bank), (256, 4097), generator=draw).to(DEVICE)
    assert error(squares(bank, at), [query]) < 1e-5
