"""InstDisc, CMC and PIRL: losses by loops over the bank, and what may and may not reach it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import backbones, conformance, rng
from bench.api import Batch, Method
from bench.data.color import lab_to_rgb
from bench.errors import BenchError
from bench.loader import Loader
from bench.nn.two_halves import color_pair
from bench.resolve import method_config
from methods.cmc import CMC
from methods.instdisc import InstDisc
from methods.pirl import PIRL

NAMES: dict[type[Method], str] = {InstDisc: "instdisc", CMC: "cmc", PIRL: "pirl"}
PAPER = {"refresh": False, "loss": "nce", "temperature": 0.07, "negatives": 5}


def made(cls: type[Method], pictures: int = conformance.PICTURES, **settings: object) -> Any:
    cfg = method_config(cls, NAMES[cls], "small", {"batch_size": 16, **PAPER, **settings})
    info = replace(conformance.toy_info(), n_train=pictures)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(cfg, backbones.build("small", conformance.SIZE), info).double()


def batch_of(method: Method, count: int = 4) -> Batch:
    batch = conformance.memorised(method)
    views = {name: [x[:count].double() for x in views] for name, views in batch.views.items()}
    return Batch(views=views, index=torch.tensor([9, 3, 0, 60])[:count])


def unit(x: Tensor) -> Tensor:
    out: Tensor = x / x.norm(dim=1, keepdim=True)
    return out


def nce(embeddings: Tensor, bank: Tensor, at: Tensor, temperature: float = 0.07) -> Tensor:
    """The formula of the official code, with Z from these very candidates."""
    size, negatives = len(bank), at.shape[1] - 1
    outs = torch.stack(
        [
            torch.stack([(one @ bank[j] / temperature).exp() for j in row])
            for one, row in zip(unit(embeddings), at.tolist(), strict=True)
        ]
    )
    p, noise = outs / (outs.detach().mean() * size), negatives / size
    total = embeddings.new_zeros(())
    for row in p:
        total = total - (row[0] / (row[0] + noise)).log()
        for each in row[1:]:
            total = total - (noise / (each + noise)).log()
    return total / len(p)


def drawn(method: Any, index: Tensor, times: int = 1) -> list[Tensor]:
    """The candidates that `loss` draws from the generator of `step_at`."""
    step = conformance.step_at("main", 0)
    size = method.data.n_train
    noise = [torch.randint(size, (len(index), 5), generator=step.rng) for _ in range(times)]
    return [torch.cat([index[:, None], each], 1) for each in noise]


# ---------------------------------------------------------------------------------------- InstDisc
def test_instdisc_is_the_official_estimation_and_so_is_its_gradient() -> None:
    method = made(InstDisc)
    batch, weight = batch_of(method), method.projector.weight
    reference = copy.deepcopy(method)
    loss = method.loss(batch, conformance.step_at("main", 0))
    embeddings = reference.projector(reference.backbone(batch.view("view")))
    expected = nce(embeddings, method.bank.rows, drawn(method, batch.index)[0])
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    (gradient,) = torch.autograd.grad(loss, weight)
    (theirs,) = torch.autograd.grad(expected, reference.projector.weight)
    torch.testing.assert_close(gradient, theirs, rtol=1e-8, atol=1e-10)


def test_instdisc_softmax_is_over_the_whole_bank() -> None:
    method = made(InstDisc, loss="softmax")
    batch = batch_of(method)
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    rows = unit(method.seen[0])
    total = 0.0
    for one, index in zip(rows, batch.index.tolist(), strict=True):
        scores = [math.exp(one @ row / 0.07) for row in method.bank.rows]
        total -= math.log(scores[index] / sum(scores))
    assert loss.item() == pytest.approx(total / 4, rel=1e-10)
    cosines = rows @ method.bank.rows.T
    hits = (cosines.argmax(1) == batch.index).double().mean()
    assert step.logged["match_top1"].item() == pytest.approx(100 * hits.item())


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_instdisc_proximal_term_is_the_squared_move_in_the_bank(loss: str) -> None:
    values = []
    for weight in (0.0, 3.0):
        method = made(InstDisc, loss=loss, proximal=weight)
        batch = batch_of(method)
        values.append(method.loss(batch, conformance.step_at("main", 0)).item())
    moved = (unit(method.seen[0]) - method.bank.rows[batch.index]).square().sum(1).mean()
    assert values[1] - values[0] == pytest.approx(3 * moved.item(), rel=1e-6)  # rows: float32


def test_the_bank_takes_in_the_batch_after_the_step_with_half_its_momentum() -> None:
    method = made(InstDisc)
    batch, step = batch_of(method), conformance.step_at("main", 0)
    before = method.bank.rows.clone()
    method.loss(batch, step)
    assert torch.equal(method.bank.rows, before)
    method.after_step(step)
    expected = before.clone()
    expected[batch.index] = unit((before[batch.index] + unit(method.seen[0])) / 2)
    torch.testing.assert_close(method.bank.rows, expected)


@pytest.mark.parametrize("cls", NAMES)
def test_a_bank_that_is_refreshed_is_made_anew_before_an_epoch_and_only_then(
    cls: type[Method],
) -> None:
    method = made(cls, refresh=True).float()
    loader = Loader(method, conformance.toy_split(), 0, torch.device("cpu"))
    before = {name: value.clone() for name, value in method.named_buffers() if "rows" in name}
    method.before_epoch(3, loader.pictures())
    fresh = {name: value.clone() for name, value in method.named_buffers() if "rows" in name}
    batch, step = next(loader.batches(0, 0, 1)), conformance.step_at("main", 0)
    method.loss(batch, step)
    method.after_step(step)
    assert fresh
    for name, value in method.named_buffers():
        if "rows" in name:
            assert not torch.allclose(fresh[name], before[name])
            assert torch.equal(value, fresh[name])
            torch.testing.assert_close(value.norm(dim=1), torch.ones(conformance.PICTURES))


def test_an_embedding_that_is_the_same_for_all_pictures_is_seen() -> None:
    method = made(InstDisc)
    spread, collapsed = conformance.step_at("main", 0), conformance.step_at("main", 0)
    method.loss(batch_of(method), spread)
    with torch.no_grad():
        method.projector.weight.zero_()
    method.loss(batch_of(method), collapsed)
    assert collapsed.logged["embedding_std"] < 0.01 < 0.2 < spread.logged["embedding_std"]


# --------------------------------------------------------------------------------------------- CMC
def test_cmc_compares_each_view_with_the_bank_of_the_other() -> None:
    method = made(CMC)
    batch = batch_of(method)
    loss = method.loss(batch, conformance.step_at("main", 0))
    _, one, other = method.seen
    (at,) = drawn(method, batch.index)
    expected = nce(one, method.bank_ab.rows, at) + nce(other, method.bank_l.rows, at)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-10, atol=0)
    before = [method.bank_l.rows.clone(), method.bank_ab.rows.clone()]
    method.after_step(conformance.step_at("main", 0))
    for rows, old, new in zip(
        (method.bank_l.rows, method.bank_ab.rows), before, (one, other), strict=True
    ):
        torch.testing.assert_close(rows[batch.index], unit((old[batch.index] + unit(new)) / 2))


@pytest.mark.parametrize("space", ["lab", "ycbcr", "r_gb"])
def test_cmc_neither_network_sees_the_other_view(space: str) -> None:
    """Gradients by the first channel of the colour space and by the others, through RGB."""
    method = made(CMC, views=space).eval()
    draw = rng.generator("muted", space)
    first = torch.rand(2, 1, 32, 32, generator=draw, dtype=torch.float64)
    rest = torch.rand(2, 2, 32, 32, generator=draw, dtype=torch.float64)
    if space == "lab":  # well inside the gamut, where RGB and back changes nothing
        x = torch.cat([40 + 20 * first, 20 * rest - 10], 1).requires_grad_()
        rgb = lab_to_rgb(x)
    elif space == "ycbcr":
        x = torch.cat([0.4 + 0.2 * first, 0.45 + 0.1 * rest], 1).requires_grad_()
        y, red = x[:, :1], x[:, :1] + (x[:, 2:] - 0.5) / 0.713
        blue = y + (x[:, 1:2] - 0.5) / 0.564
        rgb = torch.cat([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], 1)
    else:
        rgb = x = torch.cat([first, rest], 1).requires_grad_()
    seen = []
    encoder = method.encoder()
    halves = encoder(method.data.normalize(rgb)).chunk(2, 1)
    for features in (*method.embed(rgb), *halves):
        weights = torch.randn(features.shape, generator=draw, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((features * weights).sum(), x, retain_graph=True)
        seen.append((gradient[:, :1].abs().max().item(), gradient[:, 1:].abs().max().item()))
    for (one_own, one_other), (two_other, two_own) in (seen[:2], seen[2:]):
        # What is left comes from the last digits of the RGB matrices, which are not quite inverse.
        assert one_other < 1e-5 * one_own
        assert two_other < 1e-5 * two_own


def test_cmc_each_network_learns_from_its_own_direction_alone() -> None:
    method = made(CMC)
    one, _ = method.embed(batch_of(method).view("crop"))
    at = torch.arange(24).view(4, 6)
    method.bank_ab.contrast(method.bank_ab.logits(one, at), "nce").backward()
    assert all(p.grad is not None for p in method.backbone.half_l.parameters())
    assert all(p.grad is None for p in method.backbone.half_ab.parameters())


def test_color_pairs_are_standardised_channels_and_zeros() -> None:
    rgb = torch.rand(2, 3, 4, 4, generator=rng.generator("pair"), dtype=torch.float64)
    red, green, blue = rgb.unbind(1)
    one, two = color_pair(rgb, "r_gb")
    torch.testing.assert_close(one, torch.stack([(red - 0.5) / 0.25] * 3, 1))
    others = torch.stack([(green - 0.5) / 0.25, (blue - 0.5) / 0.25, 0 * blue], 1)
    torch.testing.assert_close(two, others)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    one, two = color_pair(rgb, "ycbcr")
    torch.testing.assert_close(one, torch.stack([(y - 0.5) / 0.25] * 3, 1))
    chroma = torch.stack([0.564 * (blue - y) / 0.08, 0.713 * (red - y) / 0.08, 0 * y], 1)
    torch.testing.assert_close(two, chroma)


# -------------------------------------------------------------------------------------------- PIRL
def candidates_of(method: Any, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the bank's `candidates` will give, as it gives it."""
    given: list[Tensor] = []
    draw = method.bank.candidates

    def remembered(*args: Any) -> Tensor:
        given.append(draw(*args))
        return given[-1]

    monkeypatch.setattr(method.bank, "candidates", remembered)
    return given


def test_pirl_weighs_two_estimations_against_one_bank_and_one_z(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = made(PIRL, patches_weight=0.25)
    batch, given = batch_of(method), candidates_of(method, monkeypatch)
    loss = method.loss(batch, conformance.step_at("main", 0))
    puzzle = method.embed_patches(method.patches(batch, conformance.step_at("main", 0)))
    picture = method.projector(method.backbone(batch.view("picture")))
    rows, z = method.bank.rows, method.bank.log_z
    assert len(given) == 2
    assert not torch.equal(*given)
    terms = []
    for embeddings, at in zip((puzzle, picture), given, strict=True):
        odds = (unit(embeddings)[:, None] * rows[at]).sum(2) / 0.07 - z - math.log(5 / 64)
        probability = odds.sigmoid()
        terms.append(-(probability[:, 0].log() + (1 - probability[:, 1:]).log().sum(1)).mean())
    torch.testing.assert_close(terms[0], nce(puzzle, rows, given[0]), rtol=1e-9, atol=0)
    torch.testing.assert_close(loss, 0.25 * terms[0] + 0.75 * terms[1], rtol=1e-9, atol=0)


def test_pirl_concatenates_the_patches_of_each_picture_in_an_order_of_its_own() -> None:
    method = made(PIRL, patch_jitter=0.0, gap=0.0)
    batch = batch_of(method)
    shuffled = method.patches(batch, conformance.step_at("main", 0))
    (still,) = method.cutter.still(method.data.normalize(batch.view("puzzle")))
    apart = (shuffled[:, :, None] - still[:, None]).abs().amax((3, 4, 5))
    orders = apart.argmin(2)
    assert apart.amin(2).max() < 1e-9
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(4, 9))
    assert len({tuple(order) for order in orders.tolist()}) == 4
    one, other = method.embed_patches(shuffled), method.embed_patches(shuffled.flip(1))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize(("weight", "idle"), [(0.0, "puzzle_projector"), (1.0, "projector")])
def test_pirl_lambda_shares_the_loss_between_the_branches(weight: float, idle: str) -> None:
    method = made(PIRL, patches_weight=weight)
    method.loss(batch_of(method), conformance.step_at("main", 0)).backward()
    for name in ("puzzle_projector", "projector"):
        reached = bool(method.get_submodule(name).weight.grad.any())
        assert reached == (name != idle)


def test_pirl_only_whole_pictures_enter_the_bank() -> None:
    method = made(PIRL)
    batch, step = batch_of(method), conformance.step_at("main", 0)
    before = method.bank.rows.clone()
    method.loss(batch, step)
    method.after_step(step)
    picture = method.projector(method.backbone(batch.view("picture")))
    expected = unit((before[batch.index] + unit(picture)) / 2)
    torch.testing.assert_close(method.bank.rows[batch.index], expected.detach())


def test_pirl_tells_of_pictures_too_small_for_patches() -> None:
    with pytest.raises(BenchError, match=r"too small for a 3 x 3 grid of patches"):
        made(PIRL, size=12)


# ------------------------------------------------------------------------------------- all of them
@pytest.mark.parametrize("cls", NAMES)
def test_a_bank_that_cannot_fit_is_told_before_training(cls: type[Method]) -> None:
    with pytest.raises(BenchError, match=r"memory bank.*GiB"):
        made(cls, pictures=10**12)


@pytest.mark.parametrize("cls", NAMES)
def test_estimation_needs_noise(cls: type[Method]) -> None:
    with pytest.raises(BenchError, match=r"negatives"):
        made(cls, negatives=0)


@pytest.mark.parametrize("cls", [CMC, PIRL])
def test_softmax_is_over_the_candidates(cls: type[Method], monkeypatch: pytest.MonkeyPatch) -> None:
    method = made(cls, loss="softmax")
    asked: list[Tensor] = []
    bank = method.bank_ab if cls is CMC else method.bank
    contrast = bank.contrast

    def remembered(logits: Tensor, loss: Any) -> Tensor:
        asked.append(logits)
        out: Tensor = contrast(logits, loss)
        return out

    monkeypatch.setattr(bank, "contrast", remembered)
    loss = method.loss(batch_of(method), conformance.step_at("main", 0))
    losses = [-F.log_softmax(logits, 1)[:, 0].mean() for logits in asked]
    assert all(logits.shape == (4, 6) for logits in asked)
    if cls is PIRL:
        torch.testing.assert_close(loss, (losses[0] + losses[1]) / 2)
    else:
        assert len(losses) == 1
        assert loss > losses[0]
