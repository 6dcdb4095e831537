"""What identifies a pretraining."""

from __future__ import annotations

import torch

from bench import conformance, pretraining
from bench.resolve import parse_sets, resolve


def test_the_weights_of_a_frozen_network_are_part_of_the_identity() -> None:
    """A loss may be measured by a network from a file: another file of that name is another run."""
    resolved = resolve(
        method="rotnet",
        protocol="knn",
        data="scenes",
        size=32,
        backbone="small",
        seed=0,
        recipe="auto",
        overrides=parse_sets([]) | {"engine": {"device": "cpu"}},
    )
    split = conformance.toy_split()

    def identity(frozen: bool, value: float) -> dict[str, object]:
        method = conformance.build(resolved.method, "rotnet")
        with torch.no_grad():
            method.head.weight.fill_(value)
        method.head.requires_grad_(not frozen)
        return pretraining.identity(resolved, split, method)

    assert identity(False, 1.0) == identity(False, 2.0)  # an initialisation, which the seed tells
    assert identity(True, 1.0) != identity(True, 2.0)
    assert identity(True, 1.0) == identity(True, 1.0)
