"""Every op has a case, every peer computes the same, and floors are what the formulas give."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import kernels, rng
from bench.errors import BenchError
from bench.profiling import cases
from bench.profiling.case import Case, Draw, Inputs, Peer, Size

CPU = torch.device("cpu")
# Ops that are parts of another's case, or a teacher's description.
PARTS = {"bank_logits", "log_partition", "sinkhorn", "sinkhorn_center", "Teacher"}
PEERS = [(case, peer) for case in cases.ALL.values() for peer in case.peers]


def small(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Size, Inputs]:
    dim = None if case.cpu.dims == (None,) else 16
    keys = None if case.cpu.keys == (None,) else 24
    size = Size(4, dim, keys, dtype)
    return size, case.inputs(size, Draw(CPU, dtype, rng.generator("case", case.op)))


def test_every_op_has_a_case_and_every_case_an_op() -> None:
    ops = {name.removesuffix("_center") for name in kernels.__all__}
    assert set(cases.ALL) == ops - PARTS | {"sinkhorn"}


@pytest.mark.parametrize("op", list(cases.ALL))
def test_a_case_runs_and_has_work_to_do(op: str) -> None:
    case = cases.ALL[op]
    size, inputs = small(case)
    out = case.call(inputs)
    leaves = [x for x in inputs.values() if x.requires_grad]
    assert case.backward == bool(leaves)
    if case.backward:
        assert all(g.isfinite().all() for g in torch.autograd.grad(out, leaves))
    work = case.work(size)
    assert work.bytes > 0 and work.flops >= 0 and case.floor
    assert {
        len(grid.dims) > 0 and list(grid.batches) == sorted(grid.batches)
        for grid in (case.cpu, case.cuda)
    } == {True}


@pytest.mark.parametrize(("case", "peer"), PEERS, ids=[f"{c.op}-{p.name}" for c, p in PEERS])
def test_a_peer_computes_the_same(case: Case, peer: Peer) -> None:
    if case.op == "sinkhorn":
        pytest.skip("the peer gives the plan, ours the centre: tests/kernels compares plans")
    if find_spec(peer.module) is None or peer.cuda_only:
        pytest.skip("not here")
    size, inputs = small(case)
    try:
        call = peer.build(size, inputs)
    except ImportError as error:
        pytest.skip(str(error))
    before = {key: value.detach().clone() for key, value in inputs.items()}
    theirs = call(inputs).detach().clone()
    for key, value in before.items():  # a moving average is in place
        inputs[key].data.copy_(value)
    torch.testing.assert_close(case.call(inputs).detach(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["ntxent", "infonce", "siglip", "queue_infonce"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_inputs_own_precision_computes_the_same(op: str, dtype: torch.dtype) -> None:
    case = cases.ALL[op]
    _, inputs = small(case, dtype)
    assert case.eager is not None
    loss = case.eager(inputs)
    assert loss.dtype == torch.float32
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(loss, case.call(inputs), **near)


@pytest.mark.parametrize(
    ("op", "flops"), [("ntxent", 24 * 64 * 16), ("infonce", 8 * 64 * 16), ("siglip", 6 * 64 * 16)]
)
def test_floors_of_batch_losses(op: str, flops: int) -> None:
    size = Size(8, 16, None, torch.bfloat16)
    work = cases.ALL[op].work(size)
    assert (work.flops, work.bytes) == (flops, 4 * 8 * 16 * 2)


def test_the_floor_of_nt_xent_is_what_plain_torch_multiplies() -> None:
    case = cases.ALL["ntxent"]
    size, inputs = small(case)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(case.call(inputs), [inputs["one"], inputs["two"]])
    assert counter.get_total_flops() == case.work(size).flops


def test_floors_of_prototype_losses_are_passes_over_logits() -> None:
    size = Size(64, None, 65536, torch.bfloat16)
    numbers = 64 * 65536 * 2
    # kernels that read 101 MB forward and 184 MB backward: 2 + 8 crops
    assert cases.ALL["dino"].work(size).bytes == 34 * numbers == 12 * numbers + 22 * numbers
    assert cases.ALL["ibot"].work(size).bytes == 5 * numbers
    assert cases.ALL["sinkhorn"].work(size).bytes == 5 * numbers


@pytest.mark.parametrize(("batch", "dim"), [(8, 64), (64, 8)])
def test_the_cheaper_side_of_a_correlation_counts(batch: int, dim: int) -> None:
    size = Size(batch, dim, None, torch.float32)
    flops = cases.ALL["barlow_twins"].work(size).flops
    assert flops == min(8 * batch**2 * dim, 6 * batch * dim**2)


def test_an_unknown_op_is_one_line() -> None:
    with pytest.raises(BenchError, match="did you mean ntxent"):
        cases.named(["ntxnet"])
    assert [case.op for case in cases.named(["dino", "ntxent"])] == ["dino", "ntxent"]
