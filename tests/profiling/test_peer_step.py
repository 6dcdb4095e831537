"""lightly's steps minimise what ours do, on the same embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench import conformance, registry
from bench.errors import BenchError
from bench.profiling import peer_step

# theirs -> ours: BYOL's paper has the distance of unit vectors, lightly minus the mean cosine
SCALE = {"byol": lambda loss: 4 + 4 * loss}


def same_weights(target: nn.Module, source: nn.Module) -> None:
    values, into = list(source.state_dict().values()), target.state_dict()
    *keys, last = into
    if len(keys) == len(values):  # lightly's last layer has a bias, ours none
        into[last].zero_()
    target.load_state_dict({**into, **dict(zip(into, values, strict=False))})


@pytest.mark.parametrize("name", peer_step.STEPS)
def test_losses_agree(name: str) -> None:
    ours = conformance.build(registry.method(name), name)
    theirs = peer_step.build("lightly", name, ours)
    for part in ("projector", "predictor"):
        if hasattr(ours, part):
            same_weights(getattr(theirs, part), getattr(ours, part))
    if name == "byol":
        same_weights(theirs.slow_projector, ours.target[1])
    batch, step = conformance.memorised(ours), conformance.step_at("main", 0)
    assert [v.name for v in theirs.views()] == [v.name for v in ours.views()]
    ours.eval(), theirs.eval()  # SimCLR's batch norms see both views at once, lightly's one
    loss = SCALE.get(name, lambda loss: loss)(theirs.loss(batch, step))
    assert loss.item() == pytest.approx(ours.loss(batch, step).item(), rel=1e-4)


def test_the_slow_networks_follow() -> None:
    ours = conformance.build(registry.method("byol"), "byol")
    theirs = peer_step.build("lightly", "byol", ours)
    with torch.no_grad():
        for parameter in theirs.projector.parameters():
            parameter.add_(1)
    before = [p.clone() for p in theirs.slow_projector.parameters()]
    with torch.no_grad():
        theirs.after_step(conformance.step_at("main", 0))
    moved = [p - b for p, b in zip(theirs.slow_projector.parameters(), before, strict=True)]
    assert all((m > 0).all() for m in moved)


@pytest.mark.parametrize(
    ("peer", "method", "line"),
    [
        ("lightli", "simclr", "did you mean lightly"),
        ("lightly", "rotnet", "no step of lightly is built for rotnet"),
    ],
)
def test_what_there_is_not_is_one_line(peer: str, method: str, line: str) -> None:
    with pytest.raises(BenchError, match=line):
        peer_step.check(peer, method)


def test_notes_tell_of_half_precision() -> None:
    full, half = (peer_step.notes("lightly", "simclr", of) for of in ("32", "bf16"))
    assert half == (*full, peer_step.HALF)
    assert peer_step.notes("bench", "simclr", "bf16") == ()


def test_a_peer_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_step, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="lightly is not installed"):
        peer_step.check("lightly", None)
