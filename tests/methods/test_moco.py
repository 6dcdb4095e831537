"""MoCo v1 and v2: the loss as the paper has it, the key encoder, shuffled batch norm, the queue."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import conformance, registry, rng
from bench.api import Batch, Method
from bench.errors import BenchError
from bench.nn.moco import MoCo, in_groups, match_top1
from bench.optim import lr_at
from bench.resolve import method_config
from methods.moco_v1 import MoCoV1
from methods.moco_v2 import MoCoV2

VERSIONS = pytest.mark.parametrize("name", ["moco_v1", "moco_v2"])


def ready(name: str) -> tuple[Any, Batch]:
    method = conformance.build(registry.method(name), name).double().train()
    batch = conformance.memorised(method)
    batch.views = {key: [view.double() for view in views] for key, views in batch.views.items()}
    return method, batch


def fresh(cls: type[Method], name: str, **changes: Any) -> Any:
    cfg = method_config(cls, name, "small", {"batch_size": 16, "groups": 1, "queue": 64, **changes})
    backbone = conformance.build(cls, name).backbone
    return cls(cfg, backbone, conformance.toy_info())


@VERSIONS
def test_the_loss_is_that_of_the_official_steps_in_order(name: str) -> None:
    """Two steps of lr 0.1: query, momentum update, keys, cross-entropy, queue, in the code's order.

    The official code moves the key encoder before it makes keys, ours after the step.
    """
    method, batch = ready(name)
    cfg, (for_query, for_key) = method.cfg, batch.views["view"]
    net_q = nn.Sequential(copy.deepcopy(method.backbone), copy.deepcopy(method.projector))
    net_k = copy.deepcopy(net_q)
    queue = method.queue.rows.clone()
    for number in range(2):
        step = conformance.step_at("main", number)
        state = step.rng.get_state()
        loss = method.loss(batch, step)
        method.zero_grad()
        loss.backward()
        step.rng.set_state(state)
        order = torch.randperm(len(for_key), generator=step.rng)

        query = F.normalize(torch.cat([net_q(part) for part in for_query.chunk(cfg.groups)]), dim=1)
        with torch.no_grad():
            m = cfg.teacher_momentum
            for theirs, mine in zip(net_k.parameters(), net_q.parameters(), strict=True):
                theirs.copy_(m * theirs + (1 - m) * mine)
            keys = torch.empty_like(query)
            for part in order.chunk(cfg.groups):
                keys[part] = F.normalize(net_k(for_key[part]), dim=1)
        positive = torch.einsum("nc,nc->n", query, keys)[:, None]
        logits = torch.cat([positive, torch.einsum("nc,kc->nk", query, queue.clone())], 1)
        expected = -(logits / cfg.temperature).log_softmax(1)[:, 0].mean()
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        queue[number * len(keys) : (number + 1) * len(keys)] = keys

        net_q.zero_grad()
        expected.backward()
        ours = [*method.backbone.parameters(), *method.projector.parameters()]
        for mine, theirs in zip(ours, net_q.parameters(), strict=True):
            assert mine.grad is not None and theirs.grad is not None
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-10)
            with torch.no_grad():
                mine.sub_(0.1 * mine.grad)
                theirs.sub_(0.1 * theirs.grad)
        method.after_step(step)
        torch.testing.assert_close(method.queue.rows, queue, rtol=1e-9, atol=1e-12)


@VERSIONS
def test_only_the_query_side_is_trained_and_the_key_encoder_follows(name: str) -> None:
    method, batch = ready(name)
    before = [value.clone() for value in method.key_encoder.parameters()]
    step = conformance.step_at("main", 0)
    method.loss(batch, step).backward()
    assert all(value.grad is None for value in method.key_encoder.parameters())
    with torch.no_grad():
        for value in method.query_encoder().parameters():
            value += 1
    method.after_step(step)
    for old, new in zip(before, method.key_encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - method.cfg.teacher_momentum))


def test_keys_come_back_in_the_order_of_their_pictures() -> None:
    method = fresh(MoCoV2, "moco_v2", groups=4).double()
    method.key_encoder = nn.Flatten()  # no batch norm: a key is its picture
    x = torch.randn(16, 3, 2, 2, dtype=torch.float64, generator=rng.generator("order"))
    torch.testing.assert_close(method.keys(x, rng.generator("shuffle")), x.flatten(1))


def test_key_groups_hold_other_pictures_than_query_groups() -> None:
    """A network that gives each picture its group's mean tells who shared a batch norm."""

    class GroupMean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).mean(0).expand(len(x), -1)

    method = fresh(MoCoV2, "moco_v2", batch_size=16, groups=4)
    method.key_encoder = GroupMean()
    x = 2.0 ** torch.arange(16)[:, None, None, None]  # a sum of these names its terms
    sums = (4 * method.keys(x, rng.generator("shuffle")))[:, 0].long()
    mates = [{other for other in range(16) if total >> other & 1} for total in sums.tolist()]
    queries = (4 * in_groups(GroupMean(), x, 4))[:, 0].long().tolist()
    for own, group in enumerate(mates):
        assert own in group and len(group) == 4
        assert queries[own] == sum(2**other for other in range(own // 4 * 4, own // 4 * 4 + 4))
    assert len({frozenset(group) for group in mates}) == 4
    assert all(group != set(range(i // 4 * 4, i // 4 * 4 + 4)) for i, group in enumerate(mates))


def test_one_group_sees_the_whole_batch_whatever_the_order() -> None:
    method = fresh(MoCoV1, "moco_v1").double().train()
    x = torch.randn(16, 3, 32, 32, dtype=torch.float64, generator=rng.generator("whole"))
    expected = copy.deepcopy(method.key_encoder)(x)
    torch.testing.assert_close(method.keys(x, rng.generator("any")), expected)


def test_the_key_encoder_keeps_running_statistics_of_its_own() -> None:
    method, batch = ready("moco_v2")
    own = [b for n, b in method.key_encoder.named_buffers() if n.endswith("running_mean")]
    before = [value.clone() for value in own]
    with torch.no_grad():
        method.keys(batch.views["view"][1], rng.generator("statistics"))
    assert all(not torch.equal(old, new) for old, new in zip(before, own, strict=True))


def test_the_heads_are_the_papers() -> None:
    one, two = fresh(MoCoV1, "moco_v1").projector, fresh(MoCoV2, "moco_v2").projector
    assert [type(layer) for layer in one] == [nn.Linear]
    assert [type(layer) for layer in two] == [nn.Linear, nn.ReLU, nn.Linear]


def test_match_counts_queries_that_beat_every_negative() -> None:
    a, b, c, d, e = torch.eye(5)
    query, key = torch.stack([a, b, c, d]), torch.stack([a + e, 3 * b, c, e])
    queue = torch.stack([a, F.normalize(b + e, dim=0)])
    # The first is nearer to a negative; the second and third are at theirs; the last is at neither.
    assert match_top1(query, key, queue).item() == 50


@pytest.mark.parametrize("cls", [MoCoV1, MoCoV2])
def test_the_learning_rate_is_the_papers(cls: type[MoCo]) -> None:
    cfg = method_config(cls, "moco", "paper", {"queue": 256})
    backbone = conformance.build(cls, "moco").backbone
    method = cls(cfg, backbone, conformance.toy_info())
    spec = method.optim("main")
    assert (spec.name, spec.lr, spec.weight_decay, spec.momentum) == ("sgd", 0.03, 1e-4, 0.9)
    rates = [lr_at(spec, epoch, 1, 200, 256) for epoch in (0, 119, 120, 159, 160, 199)]
    if cls is MoCoV1:
        assert rates == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])
    else:
        assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-5


def test_bad_settings_are_one_line() -> None:
    with pytest.raises(BenchError, match="a queue of 100 is no multiple of the batch of 16: set"):
        fresh(MoCoV1, "moco_v1", queue=100)
    with pytest.raises(BenchError, match="greater than or equal to 2") as one:
        fresh(MoCoV1, "moco_v1", batch_size=1)
    with pytest.raises(BenchError, match="share the batch of 16 evenly, and 3 do not") as three:
        fresh(MoCoV2, "moco_v2", groups=3)
    assert all("\n" not in str(error.value) for error in (one, three))
