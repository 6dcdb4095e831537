"""The nearest rows of a bank, tile by tile and by the kernel."""

from __future__ import annotations

import pytest
import torch
from choices import DEVICE, poisoned, window
from compiled import usage
from sizes import compiles_for_any
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from bench import rng
from bench.errors import BenchError
from bench.kernels import dispatch, knn_topk
from bench.kernels.knn_topk import MOST, reference
from bench.kernels.knn_topk.keys import from_sort_keys, sort_keys


def drawn(count: int, size: int, dim: int) -> tuple[Tensor, Tensor]:
    """Queries and a bank, float32 rows of unit length."""
    draw = rng.generator("nearest", count, size, dim)
    queries, bank = (normalize(torch.randn(n, dim, generator=draw)) for n in (count, size))
    return queries.to(DEVICE), bank.to(DEVICE)


def shared(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Rows of +-1/4 in 16 dimensions: every similarity is an exact float, and most are shared."""
    signs: Tensor = torch.randint(2, (size, 16), generator=rng.generator("signs", size))
    rows = ((signs.float() - 0.5) / 2).to(DEVICE)
    return rows[:count], rows


def exact(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities in float64, greatest first, and of equals the earlier."""
    similar = queries.double() @ bank.double().T
    values, index = similar.sort(dim=1, descending=True, stable=True)
    return values[:, :k], index[:, :k]


def by_kernel(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    pytest.importorskip("triton", reason="Triton is not installed here")
    with dispatch.using("triton") as ran, poisoned():
        found = knn_topk(queries, bank, k)
    assert ran == {"knn_topk": "triton"}
    return found


def test_keys_order_as_numbers_do_and_of_equals_by_position() -> None:
    values = torch.tensor([-2.0, -0.0, 0.0, 1e-40, 3.5, 3.5, -1e30])
    keys = sort_keys(values, torch.arange(7))
    order = [4, 5, 3, 1, 2, 0, 6]
    assert keys.argsort(descending=True).tolist() == order
    back, position = from_sort_keys(keys)
    assert torch.equal(back, values) and position.tolist() == list(range(7))


@pytest.mark.parametrize("tile", [(1, 1), (7, 13), (64, 5), (1000, 1000)])
def test_tiles_do_not_change_the_neighbours(tile: tuple[int, int]) -> None:
    queries, bank = drawn(50, 300, 16)
    near, index = from_sort_keys(reference.nearest_keys(queries, bank, 20, tile))
    values, expected = exact(queries, bank, 20)
    assert torch.equal(index, expected)
    assert torch.allclose(near.double(), values, atol=1e-6)


@pytest.mark.parametrize("tile", [(2, 3), (1024, 8192)])
def test_equals_come_in_the_order_of_the_bank(tile: tuple[int, int]) -> None:
    queries, bank = shared(10, 60)
    near, index = from_sort_keys(reference.nearest_keys(queries, bank, 50, tile))
    values, expected = exact(queries, bank, 50)
    assert torch.equal(index, expected)
    assert torch.equal(near.double(), values)
    assert (near < 0).any() and (near[:, 1:] == near[:, :-1]).any()


@pytest.mark.parametrize(
    ("count", "size", "dim", "k"),
    [(1, 1, 1, 1), (3, 63, 65, 63), (65, 127, 5, 20), (2, 1000, 40, 200), (130, 65, 16, 1)],
)
def test_the_kernel_finds_the_neighbours_at_any_size(
    count: int, size: int, dim: int, k: int
) -> None:
    queries, bank = drawn(count, size, dim)
    near, index = by_kernel(queries, bank, k)
    values, expected = exact(queries, bank, k)
    torch.testing.assert_close(near.double(), values, rtol=0, atol=1e-6)
    # In one dimension all are at 1 or -1 but for rounding: which is first is not told.
    assert dim == 1 or torch.equal(index, expected)


@pytest.mark.parametrize(("count", "size", "k"), [(10, 60, 50), (70, 700, 37), (3, 700, 256)])
def test_the_kernel_gives_equals_in_the_order_of_the_bank(count: int, size: int, k: int) -> None:
    queries, bank = shared(count, size)
    near, index = by_kernel(queries, bank, k)
    values, expected = exact(queries, bank, k)
    assert torch.equal(index, expected)
    assert torch.equal(near.double(), values)


def test_zero_rows_and_duplicates() -> None:
    _, bank = shared(0, 200)
    bank[3:150:2] = bank[0]
    queries = torch.stack([torch.zeros_like(bank[0]), bank[0]])
    near, index = by_kernel(queries, bank, 90)
    assert index[0].tolist() == list(range(90)) and not near[0].any()
    assert index[1, :75].tolist() == [0, *range(3, 150, 2)]


@pytest.mark.parametrize("rising", [True, False])
def test_a_bank_in_order_of_similarity(rising: bool) -> None:
    """When each row is nearer than the one before it, all are taken up for a while."""
    angle = torch.linspace(3, 0, 400, dtype=torch.float64)
    angle = angle if rising else angle.flip(0)
    bank = torch.stack([angle.cos(), angle.sin()], 1).float().to(DEVICE)
    query = torch.tensor([[1.0, 0.0]], device=DEVICE)
    expected = range(399, 299, -1) if rising else range(100)
    assert by_kernel(query, bank, 100)[1][0].tolist() == list(expected)


@pytest.mark.parametrize("parts", [1, 3, 100])
def test_parts_of_the_bank_do_not_change_the_neighbours(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a part has fewer rows than are looked for."""
    kernels = pytest.importorskip("bench.kernels.knn_topk.triton")

    def split(blocks: int, columns: int, tile: int, device: torch.device) -> tuple[int, int]:
        each = -(-columns // tile // parts) * tile or tile
        return -(-columns // each), each

    monkeypatch.setattr(kernels, "split", split)
    queries, bank = shared(9, 500)
    assert torch.equal(by_kernel(queries, bank, 130)[1], exact(queries, bank, 130)[1])


def test_many_queries_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip("bench.kernels.knn_topk.triton")
    monkeypatch.setattr(kernels, "QUERIES", 4)
    queries, bank = drawn(11, 70, 6)
    assert torch.equal(by_kernel(queries, bank, 9)[1], exact(queries, bank, 9)[1])
    assert by_kernel(queries[:0], bank, 9)[1].shape == (0, 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_types(dtype: torch.dtype) -> None:
    queries, bank = (x.to(dtype) for x in drawn(9, 200, 24))
    near, index = by_kernel(queries, bank, 12)
    assert near.dtype == torch.float32
    values, _ = exact(queries, bank, 12)
    torch.testing.assert_close(near.double(), values, rtol=0, atol=1e-6)
    torch.testing.assert_close(near, knn_topk(queries, bank, 12)[0], rtol=0, atol=1e-6)
    similar = (queries.double() @ bank.double().T).gather(1, index)
    torch.testing.assert_close(similar, values, rtol=0, atol=1e-6)


def test_nothing_outside_the_tensors_is_read_and_the_bits_are_the_same_every_time() -> None:
    queries, bank = drawn(40, 150, 20)
    first = by_kernel(queries, bank, 10)
    for _ in range(3):
        again = by_kernel(window(queries), window(bank), 10)
        torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_beyond_what_the_kernel_keeps_the_reference_runs_and_says_so() -> None:
    queries, bank = drawn(2, MOST + 10, 4)
    with dispatch.using("auto") as ran:
        _, index = knn_topk(queries, bank, MOST + 1)
    assert ran == {"knn_topk": "reference"}
    assert torch.equal(index, exact(queries, bank, MOST + 1)[1])
    pytest.importorskip("triton", reason="Triton is not installed here")
    with dispatch.using("triton"), pytest.raises(BenchError, match=r"k=257, above 256; use auto"):
        knn_topk(queries, bank, MOST + 1)


@pytest.mark.parametrize("choice", ["reference", "triton"])
def test_more_than_the_bank_has_cannot_be_found(choice: dispatch.Choice) -> None:
    with dispatch.using(choice), pytest.raises(BenchError, match=r"k=6, but the bank has 5 rows"):
        knn_topk(*drawn(2, 5, 4), 6)


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_torch_compile_takes_it_whole_and_at_any_size() -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    cases = [drawn(count, 20 * count, 4) for count in (3, 4, 6)]

    def loss(queries: Tensor, bank: Tensor) -> Tensor:
        near, index = knn_topk(queries, bank, 5)
        return (near * index).sum() + queries.sum() + bank.sum()  # neighbours have no gradient

    compiles_for_any(loss, cases)


def test_the_custom_op_is_told_rightly_to_the_compiler() -> None:
    kernels = pytest.importorskip("bench.kernels.knn_topk.triton")
    arguments = (*drawn(5, 30, 4), 3, "ieee")
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(kernels.listed_keys, arguments, test_utils=tests)
    with FlopCounterMode(display=False) as counter:
        kernels.listed_keys(*arguments)
    assert counter.get_total_flops() == 2 * 5 * 30 * 4


@pytest.mark.slow
@pytest.mark.parametrize("k", [20, 200, MOST])
@pytest.mark.parametrize(
    ("dtype", "dot"), [("bf16", "tf32x3"), ("fp32", "tf32x3"), ("fp32", "ieee")]
)
def test_it_compiles_for_gpus_without_spilling(k: int, dtype: str, dot: str) -> None:
    kernels = pytest.importorskip("bench.kernels.knn_topk.triton")
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    tiles = kernels._tiles(kind, 2048, dot)
    types = {"queries": f"*{dtype}", "bank": f"*{dtype}", "lists": "*i64", "counts": "*i32"}
    types |= {"floors": "*fp32"} | dict.fromkeys(("n", "m", "per_split"), "i32")
    constants = dict.fromkeys(("query_n", "bank_m"), 2048) | {"query_d": 1, "bank_d": 1}
    long = kernels.list_length(k, tiles)
    constants |= {"K": k, "D": 2048, "DOT": dot, "BQ": tiles.queries, "BM": tiles.bank}
    constants |= {"BD": tiles.depth, "LONG": long, "GROUP": max(kernels.LISTED // long, 1)}
    took = usage(kernels.__name__, "_nearest", types, constants, tiles.warps, tiles.stages)
    assert took.stack == 0
    assert took.shared <= 99 * 1024


@pytest.mark.gpu
@pytest.mark.parametrize("k", [20, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_sizes(k: int, dtype: torch.dtype) -> None:
    queries, bank = (x.to(dtype) for x in drawn(1000, 200_000, 384))
    near, index = by_kernel(queries, bank, k)
    with dispatch.using("reference"):
        values, expected = knn_topk(queries, bank, k)
    torch.testing.assert_close(near, values, rtol=0, atol=1e-5)
    assert (index == expected).float().mean() > 0.99  # near-ties may come in another order
