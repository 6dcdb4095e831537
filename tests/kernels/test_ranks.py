"""Two processes with half a batch each compute the loss and the gradients of the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import bench  # noqa: F401  # before torch, in the processes too
from bench import rng
from bench.kernels import dispatch, infonce, ntxent, siglip
from bench.kernels.ranks import ALONE, Group, Ranks

WORLD, EACH, DIM = 2, 5, 7
SETTINGS = {
    "ntxent": lambda one, two, scale, ranks: ntxent(one, two, 1 / scale, ranks),
    "infonce": lambda one, two, scale, ranks: infonce(one, two, scale, ranks=ranks),
    "one_sided": lambda one, two, scale, ranks: infonce(
        one, two, scale, symmetric=False, ranks=ranks
    ),
    "siglip": lambda one, two, scale, ranks: siglip(one, two, scale, -2.0, ranks),
}
CHOICES: tuple[dispatch.Choice, ...] = ("reference", "triton")


def embeddings() -> tuple[Tensor, Tensor]:
    draw = rng.generator("ranks")
    one, two = torch.randn(2, WORLD * EACH, DIM, dtype=torch.float64, generator=draw)
    return one, two


def measured(
    name: str, choice: dispatch.Choice, one: Tensor, two: Tensor, ranks: Ranks
) -> list[Tensor]:
    """The loss, and its gradients by both sides and the scale."""
    scale = torch.tensor(4.0, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (one, two, scale)]
    with dispatch.using(choice):
        loss = SETTINGS[name](*leaves, ranks)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def work(rank: int, folder: Path) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    url = f"file://{folder / 'meet'}"
    dist.init_process_group("gloo", init_method=url, rank=rank, world_size=WORLD)
    mine = slice(rank * EACH, (rank + 1) * EACH)
    one, two = embeddings()
    made = {
        (name, choice): measured(name, choice, one[mine], two[mine], Group())
        for name in SETTINGS
        for choice in CHOICES
    }
    torch.save(made, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, str], list[Tensor]]]:
    """What each process made, by loss and implementation."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(folder,), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("choice", CHOICES)
def test_parts_of_a_batch_average_to_the_whole(
    name: str, choice: str, parts: list[dict[tuple[str, str], list[Tensor]]]
) -> None:
    """As DistributedDataParallel averages them."""
    loss, of_one, of_two, of_scale = measured(name, "reference", *embeddings(), ALONE)
    losses, ones, twos, scales = zip(*(part[name, choice] for part in parts), strict=True)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.cat(ones) / WORLD, of_one)
    torch.testing.assert_close(torch.cat(twos) / WORLD, of_two)
    torch.testing.assert_close(torch.stack(scales).mean(), of_scale)
