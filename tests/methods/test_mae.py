"""MAE: the loss patch by patch, what encoder and loss may not see, the decoder, the picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench import backbones, conformance, rng
from bench.api import Batch, Step
from bench.errors import BenchError
from bench.nn.patch_decoder import patchify, unpatchify
from bench.resolve import method_config
from methods.mae import MAE


def fresh(backbone: str = "vit_nano_patch8", **changes: Any) -> MAE:
    cfg = method_config(MAE, "mae", "small", changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("mae"))
        network = backbones.build(backbone, conformance.SIZE)
        return MAE(cfg, network, conformance.toy_info()).train()


def toy(method: MAE) -> tuple[Batch, Step]:
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop").double()]}
    return batch, conformance.step_at("main", 0)


def official(predicted: Tensor, x: Tensor, seen: list[list[int]], norm_pix: bool) -> Tensor:
    """The mean over hidden patches of their squared error, one patch after another."""
    errors = []
    for picture, outputs, visible in zip(x, predicted, seen, strict=True):
        for number in range(16):
            row, column = divmod(number, 4)
            patch = picture[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].reshape(-1)
            if norm_pix:
                mean = patch.sum() / patch.numel()
                variance = ((patch - mean) ** 2).sum() / (patch.numel() - 1)
                patch = (patch - mean) / (variance + 1e-6) ** 0.5
            if number not in visible:
                errors.append(((outputs[number] - patch) ** 2).mean())
    return torch.stack(errors).mean()


@pytest.mark.parametrize("norm_pix", [True, False])
def test_value_and_gradients_are_the_official_formulas_patch_by_patch(norm_pix: bool) -> None:
    method = fresh(norm_pix=norm_pix).double()
    batch, step = toy(method)
    state = step.rng.get_state()
    loss = method.loss(batch, step)
    gradients = torch.autograd.grad(loss, list(method.parameters_for("main")))

    step.rng.set_state(state)
    order = method.shuffle(len(batch), step.rng)
    x, seen = batch.view("crop"), order[:, :4]
    tokens = method.backbone.tokens(x, seen)
    expected = official(method.decoder(tokens, order), x, seen.tolist(), norm_pix)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    theirs = torch.autograd.grad(expected, list(method.parameters_for("main")))
    for got, want in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12)
    assert step.logged["mse"] == loss
    flat = official(torch.zeros(16, 16, 192).double(), x, seen.tolist(), norm_pix=True)
    if norm_pix:  # a normalised patch's mean is 0
        torch.testing.assert_close(step.logged["mse_mean"], flat)


def test_hidden_patches_never_reach_the_encoder_and_visible_ones_do() -> None:
    method = fresh()
    x = conformance.memorised(method).view("crop").requires_grad_()
    order = method.shuffle(len(x), rng.generator("order"))
    _, latent = method.reconstruct(x, order)
    (gradient,) = torch.autograd.grad(latent.square().sum() + latent.sum(), x)
    touched = patchify(gradient, 8).abs().amax(-1) > 0
    seen = torch.zeros(len(x), 16, dtype=torch.bool).scatter(1, order[:, :4], True)
    assert torch.equal(touched, seen)


def test_visible_patches_give_no_loss_as_outputs() -> None:
    method = fresh()
    batch = conformance.memorised(method)
    outputs: list[Tensor] = []

    def keep(module: object, args: object, out: Tensor) -> None:
        out.retain_grad()
        outputs.append(out)

    method.decoder.register_forward_hook(keep)
    step = conformance.step_at("main", 0)
    state = step.rng.get_state()
    method.loss(batch, step).backward()
    step.rng.set_state(state)
    order = method.shuffle(len(batch), step.rng)
    gradient = outputs[0].grad
    assert gradient is not None
    scored = gradient.abs().amax(-1) > 0
    assert torch.equal(scored, torch.ones_like(scored).scatter(1, order[:, :4], False))


def test_every_picture_has_a_mask_of_its_own_drawn_evenly() -> None:
    order = fresh().shuffle(2000, rng.generator("masks"))
    assert torch.equal(order.sort(1).values, torch.arange(16).expand(2000, 16))
    share = torch.bincount(order[:, :4].flatten(), minlength=16) / 2000
    torch.testing.assert_close(share, torch.full((16,), 0.25), rtol=0, atol=0.04)


def test_the_decoder_puts_tokens_back_in_their_places() -> None:
    """Without blocks each output depends on its own token and position alone."""
    decoder = fresh().decoder
    decoder.blocks = torch.nn.Sequential()
    order = torch.rand(3, 16, generator=rng.generator("places")).argsort(1)
    tokens = torch.randn(3, 5, 96, generator=rng.generator("tokens"))
    out = decoder(tokens, order)
    for b in range(3):
        for place, number in enumerate(order[b].tolist()):
            own = decoder.embed(tokens[b, 1 + place]) if place < 4 else decoder.mask_token
            expected = decoder.head(decoder.norm(own + decoder.positions[number]))
            torch.testing.assert_close(out[b, number], expected)


def test_the_order_of_visible_patches_means_nothing() -> None:
    method = fresh().double().eval()
    x = toy(method)[0].view("crop")
    order = method.shuffle(len(x), rng.generator("order"))
    other = torch.cat([order[:, :4].flip(1), order[:, 4:].flip(1)], dim=1)
    one, two = method.reconstruct(x, order)[0], method.reconstruct(x, other)[0]
    torch.testing.assert_close(one, two)


def test_patches_are_cut_row_after_row_and_put_together_again() -> None:
    x = torch.rand(2, 3, 12, 12, generator=rng.generator("patches"))
    patches = patchify(x, 4)
    torch.testing.assert_close(patches[1, 4].view(3, 4, 4), x[1, :, 4:8, 4:8])
    torch.testing.assert_close(patches[0, 2].view(3, 4, 4), x[0, :, 0:4, 8:12])
    torch.testing.assert_close(unpatchify(patches, 4, 12), x)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_picture_shows_visible_patches_as_they_are(norm_pix: bool) -> None:
    method = fresh(norm_pix=norm_pix).eval()
    batch = conformance.memorised(method)
    with torch.no_grad():
        picture, seen, filled = method.picture(batch, conformance.step_at("main", 0))
    torch.testing.assert_close(picture.tiles, method.data.rgb(batch.view("crop")[:8]))
    grey = torch.tensor(method.data.mean)[:, None, None]
    shown = (patchify(seen.tiles - grey, 8).abs().amax(-1, keepdim=True) > 1e-6).float()
    assert (shown.sum(1) == 4).all()
    kept = patchify(filled.tiles - picture.tiles, 8).abs().amax(-1, keepdim=True) < 1e-5
    assert torch.equal(kept.float(), shown)


def test_one_point_for_all_pictures_is_told() -> None:
    method = fresh()
    batch, step = conformance.memorised(method), conformance.step_at("main", 0)
    method.loss(batch, step)
    healthy = step.logged["embedding_std"].item()
    with torch.no_grad():
        final: Any = method.backbone.get_submodule(
            "model.norm"
        )  # its output no longer depends on the picture
        final.weight.zero_()
        final.bias.fill_(1.0)
    method.loss(batch, step)
    assert step.logged["embedding_std"].item() < 0.01 < 0.05 < healthy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "small"}, "use --backbone vit_nano_patch8"),
        ({"mask_ratio": 0.99}, "leaves 0 of 16 patches"),
        ({"mask_ratio": 0.01}, "leaves 16 of 16 patches"),
        ({"decoder_width": 66}, "no multiple of 4 and of decoder_heads 4"),
        ({"mask_ratio": 1.5}, "less than 1"),
    ],
)
def test_bad_settings_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message) as error:
        fresh(**changes)
    assert "\n" not in str(error.value)
