"""Autoencoders: losses against loops, scipy, torch.distributions and autograd's full Jacobian."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from bench import backbones, conformance, registry, rng
from bench.api import Batch, Method
from bench.backbones.small import Small
from bench.errors import BenchError
from bench.nn.bottleneck import Bottleneck, between, last_map
from bench.resolve import method_config
from methods.contractive_autoencoder import squared_projection
from methods.denoising_autoencoder import corrupt
from methods.sparse_autoencoder import kl_to_rate, relative_l1, sparseness
from methods.vae import gaussian_kl

B, SIDE, CODE = 4, 8, 5


def build(name: str, **settings: Any) -> Method:
    """The method in float64 on 8 px pictures, its batch norms as in training."""
    cls = registry.method(name)
    budget = {"epochs": 1, "batch_size": B, "code_dim": CODE, "width": 4}
    cfg = method_config(cls, name, "paper", {**budget, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("autoencoders"))
        info = conformance.toy_info()
        info = type(info)(**{**vars(info), "size": SIDE})
        return cls(cfg, backbones.build("small", SIDE), info).double().train()


def pictures() -> Batch:
    """Four random pictures, RGB in [0, 1]."""
    x = torch.rand(B, 3, SIDE, SIDE, generator=rng.generator("pictures"), dtype=torch.float64)
    return Batch(views={"picture": [x]}, index=torch.arange(B))


def squared_error(one: Tensor, other: Tensor) -> float:
    """The mean over all values, added up one by one."""
    pairs = zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
    return sum((a - b) ** 2 for a, b in pairs) / one.numel()


# --------------------------------------------------------------------------------- the bottleneck
def test_a_code_sees_where_things_are_which_the_pooled_output_does_not() -> None:
    backbone = backbones.build("small", 32).eval()
    bottleneck = Bottleneck(backbone, 32, CODE)
    maps = torch.rand(2, 256, 2, 2, generator=rng.generator("maps"))
    turned = maps.rot90(1, (2, 3))
    assert torch.allclose(maps.mean((2, 3)), turned.mean((2, 3)))
    assert (bottleneck(maps) - bottleneck(turned)).abs().min() > 1e-3


def test_large_maps_are_averaged_to_four_by_four() -> None:
    bottleneck = Bottleneck(backbones.build("small", 128), 128, CODE)
    assert bottleneck.linear.in_features == 256 * 4 * 4
    maps = torch.rand(1, 256, 8, 8, generator=rng.generator("maps"))
    cells = maps.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    torch.testing.assert_close(bottleneck(maps), bottleneck.linear(cells.flatten(1)))


def test_measuring_a_backbone_leaves_its_mode_and_statistics_alone() -> None:
    backbone = backbones.build("small", SIDE).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    Bottleneck(backbone, SIDE, CODE)
    assert backbone.training
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


def test_a_backbone_without_maps_gives_its_output_as_one_cell() -> None:
    class Plain(Small):
        layers = ()

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    x = pictures().view("picture")
    torch.testing.assert_close(last_map(Plain(SIDE), x), x.mean((2, 3), keepdim=True))
    assert Bottleneck(Plain(SIDE), SIDE, CODE).linear.in_features == 3


def test_codes_between_two_begin_and_end_with_them() -> None:
    one, other = torch.tensor([0.0, 4.0]), torch.tensor([3.0, 1.0])
    expected = torch.tensor([[0.0, 4.0], [1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    torch.testing.assert_close(between(one, other, 4), expected)


# ---------------------------------------------------------------------------------- autoencoder
def test_the_autoencoder_minimises_the_mean_squared_error() -> None:
    method, batch = build("autoencoder"), pictures()
    loss = method.loss(batch, conformance.step_at("main", 0))
    drawn = method.decoder(method.bottleneck(method.backbone.maps(batch.view("picture"))["stage3"]))
    assert loss.item() == pytest.approx(squared_error(drawn, batch.view("picture")), rel=1e-6)


def test_every_reconstruction_passes_through_the_code() -> None:
    """With a code of one value, all reconstructions lie on a curve: the Jacobian has rank 1."""
    method = build("autoencoder", code_dim=1).eval()
    x = pictures().view("picture")[:1]
    jacobian = torch.autograd.functional.jacobian(
        lambda x: method.decoder(method.bottleneck(last_map(method.backbone, x))), x
    )
    singular = torch.linalg.svdvals(jacobian.reshape(x.numel(), x.numel()))
    assert singular[0] > 1e-6 and singular[1] < 1e-12 * singular[0]


# ------------------------------------------------------------------------- denoising autoencoder
def test_masking_blackens_whole_pixels_as_often_as_asked() -> None:
    x = 0.1 + 0.8 * torch.rand(8, 3, 64, 64, generator=rng.generator("x"))
    out, chosen = corrupt(x, "masking", 0.3, rng.generator("noise"))
    assert torch.equal((out == 0).all(1, keepdim=True), chosen)
    assert torch.equal(torch.where(chosen, x, out), x)
    share = stats.binomtest(int(chosen.sum()), chosen.numel(), 0.3)
    assert share.pvalue > 1e-3


def test_salt_and_pepper_is_a_fair_coin() -> None:
    x = 0.1 + 0.8 * torch.rand(8, 3, 64, 64, generator=rng.generator("x"))
    out, chosen = corrupt(x, "salt_and_pepper", 0.3, rng.generator("noise"))
    salt, pepper = (out == 1).all(1, keepdim=True), (out == 0).all(1, keepdim=True)
    assert torch.equal(salt | pepper, chosen)
    assert torch.equal(torch.where(chosen, x, out), x)
    assert stats.binomtest(int(chosen.sum()), chosen.numel(), 0.3).pvalue > 1e-3
    assert stats.binomtest(int(salt.sum()), int(chosen.sum()), 0.5).pvalue > 1e-3


def test_gaussian_noise_has_the_deviation_asked_for_and_is_not_clipped() -> None:
    x = torch.rand(8, 3, 64, 64, generator=rng.generator("x"))
    out, chosen = corrupt(x, "gaussian", 0.25, rng.generator("noise"))
    assert chosen.all() and chosen.shape == (8, 1, 64, 64)
    assert stats.kstest((out - x).flatten().numpy() / 0.25, "norm").pvalue > 1e-3
    assert out.min() < 0 and out.max() > 1


@pytest.mark.parametrize("loss_on", ["all", "corrupted"])
def test_the_denoising_loss_compares_with_the_clean_picture(loss_on: str) -> None:
    settings = {"corruption": "salt_and_pepper", "level": 0.4, "loss_on": loss_on}
    method, batch = build("denoising_autoencoder", **settings), pictures()
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    rgb = batch.view("picture")
    seen, chosen = corrupt(rgb, "salt_and_pepper", 0.4, conformance.step_at("main", 0).rng)
    clean, seen = (rgb - 0.5) / 0.25, (seen - 0.5) / 0.25
    drawn = method.decoder(method.bottleneck(method.backbone.maps(seen)["stage3"]))
    total, count, before = 0.0, 0, 0.0
    for picture, channel, row, col in itertools.product(range(B), range(3), *[range(SIDE)] * 2):
        at = (picture, channel, row, col)
        before += (seen[at] - clean[at]).item() ** 2
        if loss_on == "all" or chosen[picture, 0, row, col]:
            total += (drawn[at] - clean[at]).item() ** 2
            count += 1
    assert loss.item() == pytest.approx(total / count, rel=1e-6)
    assert step.logged["mse_unrepaired"].item() == pytest.approx(before / rgb.numel(), rel=1e-9)


def test_protocols_get_no_corruption() -> None:
    method = build("denoising_autoencoder").eval()
    x = pictures().view("picture")
    assert torch.equal(method.encoder()(x), method.backbone(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corruption": "gaussian", "loss_on": "corrupted"}, "corrupts every pixel"),
        ({"corruption": "masking", "level": 1.5}, "share of pixels"),
        ({"level": 0}, "greater than 0"),
        ({"corruption": "speckle"}, "salt_and_pepper"),
    ],
)
def test_corruptions_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        build("denoising_autoencoder", **settings)


# -------------------------------------------------------------------------------------------- VAE
@pytest.mark.parametrize(("std", "beta", "free"), [(None, 1.0, 0.0), (0.5, 4.0, 0.3)])
def test_the_vae_loss_is_the_negative_bound(std: float | None, beta: float, free: float) -> None:
    """The likelihood by scipy, the divergence by torch.distributions, picture by picture."""
    settings = {"decoder_std": std, "beta": beta, "free_bits": free}
    method, batch = build("vae", **settings), pictures()
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    x = batch.view("picture")
    mean, log_var = method.bottleneck(method.backbone.maps(x)["stage3"]).chunk(2, 1)
    q = torch.distributions.Normal(mean, (log_var / 2).exp())
    noise = torch.randn(B, CODE, generator=conformance.step_at("main", 0).rng, dtype=torch.float64)
    drawn = method.decoder(q.mean + q.stddev * noise).detach().numpy()
    scale = math.sqrt(np.mean((drawn - x.numpy()) ** 2)) if std is None else std
    likelihood = stats.norm(drawn, scale).logpdf(x.numpy()).sum() / B
    prior = torch.distributions.Normal(torch.zeros(CODE), torch.ones(CODE))
    kl = torch.distributions.kl_divergence(q, prior).mean(0).tolist()
    expected = -likelihood + beta * sum(max(nats, free) for nats in kl)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert step.logged["kl"].item() == pytest.approx(sum(kl), rel=1e-9)
    assert step.logged["active_units"].item() == sum(mean.detach().numpy().var(0, ddof=1) > 0.01)


def test_the_closed_form_of_the_divergence_agrees_with_torch() -> None:
    mean, log_var = torch.randn(2, 7, 3, generator=rng.generator("kl"), dtype=torch.float64)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    prior = torch.distributions.Normal(zero, one)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_var / 2).exp()), prior
    )
    torch.testing.assert_close(gaussian_kl(mean, log_var), expected)


def test_units_within_their_free_bits_get_no_gradient_of_the_divergence() -> None:
    """A large beta changes no gradient where every unit's divergence is free."""
    gradients = []
    for beta in (0.0, 1e6):
        method = build("vae", free_bits=100.0, beta=beta)
        method.loss(pictures(), conformance.step_at("main", 0)).backward()
        gradients.append(method.bottleneck.linear.weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


# ----------------------------------------------------------------------- contractive autoencoder
def test_the_penalty_is_the_frobenius_norm_of_the_jacobian() -> None:
    """The mean over ALL sign vectors has no sampling error: it must be the norm exactly."""
    method = build("contractive_autoencoder", code_dim=3)
    x = pictures().view("picture")[:3].requires_grad_()
    full = torch.autograd.functional.jacobian(method.encode, x)
    assert isinstance(full, Tensor) and full.shape == (3, 3, 3, 3, SIDE, SIDE)
    assert full[0, :, 1].abs().max() > 0, "batch norm should join the pictures of this batch"
    code = method.encode(x)
    total = torch.zeros_like(x)
    for signs in itertools.product((-1.0, 1.0), repeat=code.numel()):
        total += squared_projection(code, x, code.new_tensor(signs).view_as(code)).detach()
    expected = full.square().sum((0, 1))  # by each pixel of each picture
    torch.testing.assert_close(total / 2 ** code.numel(), expected, rtol=1e-9, atol=1e-15)


def test_random_projections_are_signs_and_without_bias() -> None:
    method = build("contractive_autoencoder", projections=4000)
    x = pictures().view("picture").requires_grad_()
    code = (x[:, :1, 0, :CODE].squeeze(1) * torch.arange(1.0, CODE + 1)).sin()
    got = method.contraction(code, x, rng.generator("signs")).sum().item()
    full = (torch.arange(1.0, CODE + 1) * (1 - code.square()).sqrt()).square().sum().item()
    assert got == pytest.approx(full, rel=1e-9)  # a diagonal Jacobian: every sign gives the norm


def test_the_contractive_loss_adds_the_penalty_and_its_gradient_is_right() -> None:
    """The gradient of the penalty, a second derivative, against central differences."""
    method, batch = build("contractive_autoencoder", contraction=50.0), pictures()
    weight = method.backbone.stage2.conv.weight

    def loss() -> Tensor:
        return method.loss(batch, conformance.step_at("main", 0))

    step = conformance.step_at("main", 0)
    value = method.loss(batch, step)
    pixels, code = 3 * SIDE**2, step.logged["jacobian"].item()
    assert value.item() == pytest.approx(pixels * step.logged["mse"].item() + 50 * code, rel=1e-9)
    (gradient,) = torch.autograd.grad(loss(), weight)
    towards = torch.randn(weight.shape, generator=rng.generator("d"), dtype=weight.dtype)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-6 * towards
        values.append(loss().item())
        with torch.no_grad():
            weight -= sign * 1e-6 * towards
    numeric = (values[0] - values[1]) / 2e-6
    assert (gradient * towards).sum().item() == pytest.approx(numeric, rel=1e-4)


def test_shrinking_the_code_does_not_lower_the_penalty() -> None:
    values = []
    for scale in (1.0, 0.01):
        method = build("contractive_autoencoder")
        method.norm.eps = 1e-15
        with torch.no_grad():
            method.bottleneck.linear.weight *= scale
        step = conformance.step_at("main", 0)
        method.loss(pictures(), step)
        values.append(step.logged["jacobian"].item())
    assert values[1] == pytest.approx(values[0], rel=1e-6)


# ---------------------------------------------------------------------------- sparse autoencoder
def test_the_sparsity_penalty_is_the_divergence_of_bernoullis() -> None:
    mean = torch.tensor([0.001, 0.05, 0.3, 0.99], dtype=torch.float64)
    expected = [stats.entropy([0.05, 0.95], [m, 1 - m]) for m in mean.tolist()]
    torch.testing.assert_close(kl_to_rate(mean, 0.05), torch.tensor(expected).double())
    assert kl_to_rate(torch.tensor([0.0, 1.0]), 0.05).isfinite().all()


def test_one_unit_that_fires_once_is_sparse_and_one_that_always_does_is_not() -> None:
    code = torch.zeros(4, 3, dtype=torch.float64)
    code[:, 0], code[2, 1] = 7.0, 0.01
    torch.testing.assert_close(sparseness(code), torch.tensor([0.0, 1.0, 4 / 3]).double())
    torch.testing.assert_close(relative_l1(code), torch.tensor([1.0, 0.5, 0.0]).double())


@pytest.mark.parametrize("penalty", ["kl", "l1"])
def test_the_sparse_loss_is_half_the_error_and_the_penalty(penalty: str) -> None:
    method, batch = build("sparse_autoencoder", penalty=penalty, rho=0.2, beta=2.0), pictures()
    loss = method.loss(batch, conformance.step_at("main", 0))
    x = batch.view("picture")
    raw = method.bottleneck(method.backbone.maps(x)["stage3"])
    code = 1 / (1 + (-raw).exp()) if penalty == "kl" else raw * (raw > 0)
    total = squared_error(method.decoder(code), x) * 3 * SIDE**2 / 2
    for unit in code.detach().T.tolist():
        mean, square = sum(unit) / B, sum(value**2 for value in unit) / B
        if penalty == "kl":
            total += 2 * (0.2 * math.log(0.2 / mean) + 0.8 * math.log(0.8 / (1 - mean)))
        elif square:
            total += 2 * mean / math.sqrt(square)
    assert loss.item() == pytest.approx(total, rel=1e-6)


# ----------------------------------------------------------------------- adversarial autoencoder
def test_the_adversarial_losses_are_binary_cross_entropies() -> None:
    method, batch = build("adversarial_autoencoder", hidden=6, prior_std=2.0), pictures()
    code = method.bottleneck(method.backbone.maps(batch.view("picture"))["stage3"])
    normal = torch.randn(
        B, CODE, generator=conformance.step_at("discriminator", 0).rng, dtype=torch.float64
    )

    def chance(z: Tensor) -> list[float]:
        return [1 / (1 + math.exp(-logit)) for logit in method.discriminator(z)[:, 0].tolist()]

    real, fake = chance(2 * normal), chance(code)
    expected = {
        "reconstruction": squared_error(method.decoder(code), batch.view("picture")),
        "discriminator": -sum(math.log(p) for p in real) / B
        - sum(math.log(1 - p) for p in fake) / B,
        "generator": -sum(math.log(p) for p in fake) / B,
    }
    for phase in method.phases:
        loss = method.loss(batch, conformance.step_at(phase, 0))
        assert loss.item() == pytest.approx(expected[phase], rel=1e-6), phase


def test_each_phase_moves_its_own_player_only() -> None:
    parts = {
        "reconstruction": {"backbone", "bottleneck", "decoder"},
        "discriminator": {"discriminator"},
        "generator": {"backbone", "bottleneck"},
    }
    for phase, expected in parts.items():
        method = build("adversarial_autoencoder", hidden=6)
        method.loss(pictures(), conformance.step_at(phase, 0)).backward()
        moved = {
            name
            for name, module in method.named_children()
            if any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        }
        assert moved == expected
        names = {id(p): name for name, p in method.named_parameters()}
        trained = {names[id(p)].partition(".")[0] for p in method.parameters_for(phase)}
        assert trained == expected
        assert all(p.requires_grad for p in method.parameters())


def test_the_autoencoders_never_put_the_backbone_twice_into_a_checkpoint() -> None:
    for name in ("autoencoder", "vae", "contractive_autoencoder"):
        method = build(name)
        convolutions = [m for m in method.modules() if isinstance(m, nn.Conv2d)]
        keys = [key for key in method.state_dict() if key.endswith("stem.0.weight")]
        assert keys == ["backbone.stem.0.weight"] and convolutions
