"""The Triton kernels of the contrastive losses against the references in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from choices import DEVICE, by, error
from compiled import usage
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench import rng
from bench.kernels import dispatch, infonce, ntxent, queue_infonce, siglip

pytest.importorskip("triton", reason="Triton is not installed here")
from bench.kernels import contrast

Loss = Callable[..., Tensor]
# Each of (embeddings, their partners, temperature); what else there is comes from `others`.
LOSSES: dict[str, Loss] = {
    "ntxent": ntxent,
    "infonce": lambda one, two, t: infonce(one, two, 1 / t),
    "one_sided": lambda one, two, t: infonce(one, two, 1 / t, symmetric=False),
    "queue_infonce": lambda one, two, t: queue_infonce(one, two, queue_for(one), t),
    "siglip": lambda one, two, t: siglip(one, two, 1 / t, -3.0),
}
# Of the value, and of each gradient's length, at temperature 0.1: errors grow as it falls.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
KEYS = {"queue_infonce"}  # without gradient of the second side
every_loss = pytest.mark.parametrize("name", list(LOSSES))


def drawn(count: int, dim: int, dtype: torch.dtype) -> list[Tensor]:
    """Embeddings `[N, D]` and partners that are a little like them, of no unit length."""
    draw = rng.generator("contrast", count, dim)
    one, noise = torch.randn(2, count, dim, dtype=torch.float64, generator=draw)
    pair = (3 * one, 0.3 * one + noise)
    return [x.to(DEVICE, dtype).requires_grad_() for x in pair]


def queue_for(one: Tensor, rows: int = 70) -> Tensor:
    draw = rng.generator("queue", one.shape[1])
    queue = torch.randn(rows, one.shape[1], dtype=torch.float64, generator=draw)
    return F.normalize(queue, dim=1).to(one.device, torch.promote_types(one.dtype, torch.float32))


def off(name: str, pair: list[Tensor], t: float | Tensor) -> float:
    """How far the kernel is from the reference in float64, see `choices.error`; of t too."""
    inputs = pair[:1] if name in KEYS else pair
    fixed = [x.detach() for x in pair[len(inputs) :]]
    if isinstance(t, Tensor):
        return error(lambda *x: LOSSES[name](*x[:-1], *as_wide(x[0], fixed), x[-1]), [*inputs, t])
    return error(lambda *x: LOSSES[name](*x, *as_wide(x[0], fixed), t), inputs)


def as_wide(like: Tensor, fixed: list[Tensor]) -> list[Tensor]:
    return [x.double() if like.dtype == torch.float64 else x for x in fixed]


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(("count", "dim"), [(2, 64), (33, 20), (65, 100), (32, 128)])
def test_values_and_gradients_at_any_size(
    name: str, dtype: torch.dtype, count: int, dim: int
) -> None:
    assert off(name, drawn(count, dim, dtype), 0.1) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["queue_infonce", "siglip"])
def test_a_single_pair(name: str) -> None:
    assert off(name, drawn(1, 5, torch.float32), 0.1) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", ["ntxent", "infonce", "one_sided"])
def test_a_single_pair_has_nobody_else_to_be_told_from(name: str) -> None:
    loss, *gradients = by(
        "triton", lambda a, b: LOSSES[name](a, b, 0.1), drawn(1, 5, torch.float32)
    )
    assert abs(loss.item()) < 1e-6
    assert max(g.abs().max().item() for g in gradients) < 1e-6


@every_loss
def test_rows_longer_than_a_tile(name: str) -> None:
    assert off(name, drawn(20, 300, torch.float32), 0.1) < TOLERANCE[torch.float32]


@every_loss
@pytest.mark.parametrize("t", [1.0, 0.04, 0.02, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_any_temperature_fixed_or_learnt(name: str, t: float, dtype: torch.dtype) -> None:
    """Below 1/64 and where it is learnt, sums are kept relative to a running maximum."""
    pair = drawn(40, 24, dtype)
    for temperature in (t, torch.tensor(t, device=DEVICE)):
        assert off(name, pair, temperature) < TOLERANCE[dtype] * max(0.1 / t, 1)


@every_loss
def test_far_and_equal_rows_at_the_lowest_temperature(name: str) -> None:
    """Opposite partners and duplicates: exponents from -100 to 100."""
    one = drawn(16, 8, torch.float32)[0].detach()
    two = torch.cat([-one[:8], one[:1].expand(8, 8)])
    assert off(name, [one, two], 0.01) < 1e-4


@every_loss
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    one, two = drawn(5, 3, torch.float64)
    pair = one, two.detach() if name == "queue_infonce" else two  # keys are without gradient
    t = torch.tensor(0.3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    with dispatch.using("triton"):
        assert torch.autograd.gradcheck(LOSSES[name], (*pair, t))


def test_scale_and_bias_of_siglip_learn() -> None:
    pair = drawn(6, 4, torch.float64)
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (7.0, -4.0))
    with dispatch.using("triton"):
        assert torch.autograd.gradcheck(siglip, (*pair, scale.to(DEVICE), bias.to(DEVICE)))


def test_sigmoids_of_sure_strangers_are_not_rounded_away() -> None:
    """At SigLIP's start every stranger's loss is about exp(-10): 1 + that has three digits."""
    from bench.kernels.siglip.triton import strangers

    rows = F.normalize(drawn(64, 16, torch.float32)[0].detach(), dim=1)
    scale, bias = torch.full((2, 1), 1.0, device=DEVICE).mul(
        torch.tensor([[1.0], [-12.0]], device=DEVICE)
    )
    _, losses, shares = strangers(rows, rows, scale, bias, 0, "ieee")
    x = rows.double() @ rows.double().T - 12
    apart = ~torch.eye(64, dtype=torch.bool, device=DEVICE)
    torch.testing.assert_close(losses.double(), (F.softplus(x) * apart).sum(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(shares.double(), (x.sigmoid() * apart).sum(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 1000])
def test_queues_of_any_length(rows: int) -> None:
    one, two = drawn(9, 20, torch.float32)

    def loss(one: Tensor) -> Tensor:
        keys = two.detach().to(one.dtype)
        return 1 + queue_infonce(one, keys, queue_for(one, rows), 0.07)  # of an empty one it is 0

    assert error(loss, [one]) < 1e-5 or rows == 0
    loss_of_none, gradient = by("triton", loss, [one])
    assert rows or (loss_of_none.item() == 1 and not gradient.any())


@pytest.mark.parametrize("length", [0.0, 10.0])
def test_rows_of_a_queue_need_not_be_unit(length: float) -> None:
    one, two = drawn(9, 20, torch.float32)

    def loss(one: Tensor) -> Tensor:
        return queue_infonce(one, two.detach().to(one.dtype), length * queue_for(one), 0.07)

    assert error(loss, [one]) < 1e-4


def test_a_broken_row_is_not_passed_over() -> None:
    """So that a training is seen to diverge."""
    one, two = drawn(9, 20, torch.float32)
    queue = queue_for(one).index_fill(0, torch.tensor([3], device=DEVICE), float("nan"))
    for t in (0.1, 0.01):
        with dispatch.using("triton"):
            assert queue_infonce(one, two, queue, t).isnan()
            assert infonce(
                one,
                two.detach().index_fill(0, torch.tensor([3], device=DEVICE), float("nan")),
                1 / t,
            ).isnan()


@every_loss
def test_rows_in_any_order_in_memory(name: str) -> None:
    pair = [x.detach().T.contiguous().T for x in drawn(40, 24, torch.float32)]
    assert pair[0].stride() == (1, 40)
    assert off(name, pair, 0.1) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("scale", [0.0, -200.0])
def test_scales_that_nobody_should_use(scale: float) -> None:
    pair = drawn(9, 20, torch.float32)
    learnt = torch.tensor(scale, device=DEVICE)
    for loss in (infonce, partial(siglip, bias=-1.0)):
        for call, inputs in ((loss, [*pair, learnt]), (partial(loss, scale=scale), pair)):
            got, expected = (by(choice, call, inputs) for choice in ("triton", "reference"))
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6)


def test_sides_of_two_types() -> None:
    """Each is brought to unit length as it is: lengths are beyond what halves can hold."""
    one, two = drawn(40, 24, torch.float32)
    for length in (1e5, 1e-9):
        inputs = [one.detach().half(), two.detach() * length]
        for loss in (partial(infonce, scale=10.0), partial(siglip, scale=10.0, bias=-3.0)):
            got, expected = by("triton", loss, inputs), by("reference", loss, inputs)
            for a, b in zip(got, expected, strict=True):
                assert (a.double() - b).norm() < 2e-3 * b.double().norm()


@every_loss
def test_nothing_outside_the_rows_is_read(name: str) -> None:
    """The embeddings are windows of buffers that are NaN all around."""
    pair = drawn(33, 20, torch.float32)
    windows = []
    for x in pair:
        buffer = torch.full((40, 32), float("nan"), device=DEVICE)
        buffer[3:36, 5:25] = x.detach()
        windows.append(buffer[3:36, 5:25])
    with dispatch.using("triton"):
        expected = LOSSES[name](*(x.detach() for x in pair), 0.1)
        assert torch.equal(LOSSES[name](*windows, 0.1), expected)


def test_kernels_neither_read_nor_leave_what_is_around_their_tensors() -> None:
    around = torch.full((50, 20), float("nan"), device=DEVICE)
    rows = F.normalize(drawn(33, 20, torch.float32)[0].detach(), dim=1)
    around[7:40] = rows
    scale = torch.full((1,), 5.0, device=DEVICE)
    inside = around[7:40]  # contiguous, NaN before and behind it
    lse = contrast.row_lse(inside, inside, scale, 0, True, "ieee")
    assert torch.equal(lse, contrast.row_lse(rows, rows, scale, 0, True, "ieee"))
    pulled = contrast.pull(inside, inside, scale, lse, lse, 0, True, "ieee")
    assert torch.equal(pulled, contrast.pull(rows, rows, scale, lse, lse, 0, True, "ieee"))
    assert around[:7].isnan().all() and around[40:].isnan().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_bits_every_time(name: str, dtype: torch.dtype) -> None:
    pair = drawn(70, 20, dtype)

    def once() -> list[Tensor]:
        with dispatch.using("triton"):
            value = LOSSES[name](*pair, 0.1)
            return [value, *torch.autograd.grad(value, pair[:1])]

    first = once()
    for _ in range(9):
        assert all(map(torch.equal, once(), first))


@every_loss
@pytest.mark.parametrize("processors", [1, 64])
def test_columns_may_be_split_among_programs(
    name: str, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def split(blocks: int, columns: int, tile: int, device: torch.device) -> tuple[int, int]:
        tiles = max(-(-columns // tile), 1)
        each = -(-tiles // min(processors, tiles)) * tile
        return max(-(-columns // each), 1), each

    monkeypatch.setattr(contrast, "split", split)
    monkeypatch.setattr(import_module("bench.kernels.siglip.triton"), "split", split)
    assert off(name, drawn(150, 20, torch.float32), 0.1) < TOLERANCE[torch.float32]


@every_loss
@pytest.mark.parametrize("dim", [100, 200, 300])
def test_the_tiles_of_large_gpus(name: str, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "roomy", lambda device: True)
    assert off(name, drawn(70, dim, torch.float16), 0.1) < TOLERANCE[torch.float16]


def test_no_matrix_of_all_pairs_is_kept() -> None:
    """What the backward pass keeps grows with the rows; the reference keeps rows squared."""

    def kept(choice: dispatch.Choice, count: int) -> int:
        sizes: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return x

        with (
            dispatch.using(choice),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x),
        ):
            loss = ntxent(*drawn(count, 8, torch.float32), 0.5)
            loss.backward()
        return sum(sizes.values())

    assert kept("reference", 128) > 4 * 256 * 256
    assert kept("triton", 128) < 4 * 256 * (2 * 8 + 8)
    assert kept("triton", 128) < 2.1 * kept("triton", 64)


@pytest.mark.parametrize("diagonal", [None, 0, 3])
def test_custom_ops_are_told_rightly_to_the_compiler(diagonal: int | None) -> None:
    rows = F.normalize(drawn(9, 5, torch.float32)[0].detach(), dim=1)
    scale, lse = torch.full((1,), 5.0, device=DEVICE), torch.ones(9, device=DEVICE)
    tests = ("test_schema", "test_faketensor")
    settings = (diagonal, True, "ieee")
    torch.library.opcheck(contrast.row_lse, (rows, rows, scale, *settings), test_utils=tests)
    for normalizers in ((lse, lse), (lse, None), (None, lse)):
        arguments = (rows, rows, scale, *normalizers, *settings)
        torch.library.opcheck(contrast.pull, arguments, test_utils=tests)
    from bench.kernels.siglip.triton import strangers

    arguments = (rows, rows, scale, -scale, diagonal or 0, "ieee")
    torch.library.opcheck(strangers, arguments, test_utils=tests)


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
@pytest.mark.parametrize("choice", ["triton", "reference"])
@every_loss
def test_torch_compile_takes_them_whole_and_at_any_size(
    name: str, choice: dispatch.Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = queue_for(drawn(9, 5, torch.float32)[0])
    monkeypatch.setitem(globals(), "queue_for", lambda one: queue)
    torch.compiler.reset()
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager")
    for count in (9, 10, 13):
        pair = drawn(count, 5, torch.float32)
        with dispatch.using(choice):
            expected = torch.autograd.grad(LOSSES[name](*pair, 0.1), pair[:1])
            got = torch.autograd.grad(compiled(*pair, 0.1), pair[:1])
        torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_what_is_compiled_follows_the_choice() -> None:
    pair = drawn(9, 5, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(lambda a, b: ntxent(a, b, 0.1), backend="aot_eager")
    for choice in ("triton", "reference"):
        with dispatch.using(choice) as ran:
            compiled(*pair)
        assert ran == {"ntxent": choice}


def test_their_operations_are_counted() -> None:
    """As profiles of training steps count them: 6 M^2 D for NT-Xent, M views of D dimensions."""
    pair = drawn(9, 5, torch.float32)
    with dispatch.using("triton"), FlopCounterMode(display=False) as counter:
        ntxent(*pair, 0.5).backward()
    assert counter.get_total_flops() == 6 * 18**2 * 5
    with dispatch.using("triton"), FlopCounterMode(display=False) as counter:
        siglip(*pair, 1.0, 0.0).backward()
    assert counter.get_total_flops() == 8 * 9**2 * 5


def arguments(dtype: str, kernel: str) -> dict[str, str]:
    pointers = {"_row_lse": "scale out", "_pull": "scale row_lse col_lse out"}
    pointers["_strangers"] = "scale bias out losses shares"
    return (
        {"q": f"*{dtype}", "k": f"*{dtype}"}
        | dict.fromkeys(pointers[kernel].split(), "*fp32")
        | dict.fromkeys(("n", "m", "diagonal", "per_split"), "i32")
    )


NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
SETTINGS: dict[str, dict[str, Any]] = {
    "_row_lse": {"SELF": True},
    "_pull": {"SELF": True, "ROW": True, "COL": True, "LIFT": 1.0},
    "_strangers": {"WIDE": False, "LIFT": 1.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", list(SETTINGS))
@pytest.mark.parametrize(
    ("dtype", "dim", "large"),
    [
        (torch.bfloat16, 128, True),
        (torch.float16, 256, True),
        (torch.bfloat16, 300, True),
        (torch.bfloat16, 768, True),
        (torch.float32, 128, True),
        (torch.bfloat16, 128, False),
    ],
)
def test_they_compile_for_gpus_without_spilling(
    kernel: str, dtype: torch.dtype, dim: int, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an H100 (capability 9.0, 227 KiB of shared memory) and an RTX 30 (8.6, 99 KiB)."""
    monkeypatch.setattr(contrast, "roomy", lambda device: large)
    choose = contrast.lse_tiles if kernel == "_row_lse" else contrast.pull_tiles
    module = "bench.kernels.contrast"
    tiles = choose(dtype, dim, DEVICE)
    if kernel == "_strangers":
        module = "bench.kernels.siglip.triton"
        tiles = import_module(module).strangers_tiles(dtype, dim, DEVICE)
    shape = {"BM": tiles.rows, "BN": tiles.columns, "BD": tiles.depth, "BO": tiles.width}
    if kernel == "_row_lse":
        shape.pop("BO")
    for bounded in (True, False) if kernel != "_strangers" and dim != 256 else (True,):
        constants = {"D": dim, "DOT": "tf32x3", "ACC": "tl.float32", **shape, **SETTINGS[kernel]}
        if kernel != "_strangers":
            constants["BOUNDED"] = bounded
        took = usage(
            module, kernel, arguments(NAMES[dtype], kernel), constants,
            tiles.warps, tiles.stages, 90 if large else 86,
        )  # fmt: skip
        assert took.stack == 0
        assert took.shared <= (227 if large else 99) * 1024


@pytest.mark.gpu
@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("count", "dim"), [(1000, 96), (4096, 128), (4097, 256), (2048, 768)])
@pytest.mark.parametrize("t", [0.1, 0.01, "learnt"])
def test_real_sizes(
    name: str, dtype: torch.dtype, count: int, dim: int, t: float | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(globals(), "queue_for", lambda one: long_queue(one))
    temperature = torch.tensor(0.05, device=DEVICE) if isinstance(t, str) else t
    warmth = 0.05 if isinstance(t, str) else t
    found = off(name, drawn(count, dim, dtype), temperature)
    assert found < TOLERANCE[dtype] * max(0.1 / warmth, 1)


def long_queue(one: Tensor) -> Tensor:
    draw = rng.generator("queue", one.shape[1], device=one.device)
    queue = torch.randn(65536, one.shape[1], generator=draw, device=one.device)
    return F.normalize(queue, dim=1).to(torch.promote_types(one.dtype, torch.float32))
