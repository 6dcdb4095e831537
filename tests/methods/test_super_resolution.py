"""Degradation against Pillow, losses against plain loops, phi_5,4 against torchvision's VGG-19."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchvision.models.vgg import cfgs, make_layers

from bench import backbones, conformance, rng
from bench.errors import BenchError
from bench.nn.perceptual import Degrade, Phi54
from bench.resolve import method_config
from methods.super_resolution import SuperResolution, psnr

PICTURES = torch.rand(4, 3, 32, 32, generator=rng.generator("super-resolution"))


def make(size: int = 32, **settings: object) -> SuperResolution:
    small = {"epochs": 6, "batch_size": 16, "content": "pixel", "width": 8, "crop": 1.0}
    cfg = method_config(SuperResolution, "super_resolution", "paper", small | settings)
    info = replace(conformance.toy_info(), size=size)
    return SuperResolution(cfg, backbones.build("small", 32), info)


def in_double(**settings: object) -> tuple[SuperResolution, Any]:
    """A method in float64 and a batch for it."""
    method = make(**settings).double()
    batch = conformance.memorised(method)
    batch.views = {"picture": [batch.view("picture").double()]}
    return method, batch


@pytest.mark.parametrize("scale", [2, 4])
def test_pictures_are_degraded_as_pillow_does(scale: int) -> None:
    data = conformance.toy_info()
    smooth = 0.2 + 0.6 * PICTURES  # bicubic overshoots are clipped, which Pillow's floats are not
    got = data.rgb(Degrade(scale, data)(data.normalize(smooth)))
    for picture, channel in product(range(4), range(3)):
        image = Image.fromarray(smooth[picture, channel].numpy())
        small = image.resize((32 // scale, 32 // scale), Image.Resampling.BICUBIC)
        large = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(got[picture, channel].numpy(), large.clip(0, 1), atol=1e-5)


def test_the_encoder_cannot_see_what_the_method_never_saw() -> None:
    method = make(scale=4).eval()
    at = torch.arange(32)
    board = 0.2 * ((at[:, None] + at[None]) % 2 - 0.5)  # the finest detail there is
    grey = torch.full((1, 3, 32, 32), 0.5)
    plain, fine = (method.data.normalize(x) for x in (grey, grey + board))
    encoder = method.encoder().eval()
    with torch.no_grad():
        seen, unseen = encoder(fine) - encoder(plain), method.backbone(fine - plain)
        assert torch.equal(encoder(fine), method.backbone(method.degrade(fine)))
    assert seen.abs().max() < 0.02 * unseen.abs().max()


def test_psnr_is_torchmetrics() -> None:
    other = (PICTURES + 0.1 * torch.randn(PICTURES.shape, generator=rng.generator("n"))).clamp(0, 1)
    expected = peak_signal_noise_ratio(other, PICTURES, data_range=1.0)
    torch.testing.assert_close(psnr(other, PICTURES), expected)


def test_the_generator_minimises_content_and_a_thousandth_of_the_adversarial_loss() -> None:
    method, batch = in_double(pretrain_share=0.0)
    sharp = batch.view("picture")
    made = method.enlarge(method.blur(sharp))
    squares = [
        (2 * a - 2 * b) ** 2
        for a, b in zip(made.flatten().tolist(), sharp.flatten().tolist(), strict=True)
    ]
    logits = method.discriminator(2 * made - 1).tolist()
    adversarial = sum(-math.log(1 / (1 + math.exp(-v))) for v in logits) / len(logits)
    loss = method.loss(batch, conformance.step_at("generator", 0))
    expected = sum(squares) / len(squares) + 1e-3 * adversarial
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_the_discriminator_has_plain_binary_cross_entropy() -> None:
    method, batch = in_double(pretrain_share=0.0)
    sharp = batch.view("picture")
    real = method.discriminator(2 * sharp - 1).sigmoid().tolist()
    fake = method.discriminator(2 * method.enlarge(method.blur(sharp)) - 1).sigmoid().tolist()
    expected = sum(-math.log(p) for p in real) + sum(-math.log(1 - p) for p in fake)
    loss = method.loss(batch, conformance.step_at("discriminator", 0))
    assert loss.item() == pytest.approx(expected / len(sharp), rel=1e-10)


def test_the_first_epochs_train_by_pixels_alone() -> None:
    method, batch = in_double(pretrain_share=0.5)
    early = replace(conformance.step_at("discriminator", 0), epoch=2, epochs=6)
    method.loss(batch, early).backward()
    assert all(p.grad is None for p in method.parameters())
    step = replace(conformance.step_at("generator", 0), epoch=2, epochs=6)
    loss = method.loss(batch, step)
    made = method.enlarge(method.blur(batch.view("picture")))
    pixels = 4 * nn.functional.mse_loss(made, batch.view("picture"))
    assert loss.item() == pytest.approx(pixels.item(), rel=1e-10)
    method.loss(batch, replace(early, epoch=3)).backward()
    assert all(p.grad is not None for p in method.discriminator.parameters())
    assert all(p.grad is None for p in method.backbone.parameters())


def test_srresnet_has_no_adversary() -> None:
    method = make(adversarial=False)
    assert method.phases == ("generator",)
    assert not any("discriminator" in name for name, _ in method.named_parameters())
    made = method.enlarge(method.blur(PICTURES))
    batch = conformance.memorised(method)
    batch.views = {"picture": [PICTURES]}
    loss = method.loss(batch, conformance.step_at("generator", 0))
    torch.testing.assert_close(loss, 4 * nn.functional.mse_loss(made, PICTURES))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_network_without_knowledge_gives_the_bicubic_picture(scale: int) -> None:
    method = make(scale=scale)
    last = [module for module in method.upsampling if isinstance(module, nn.Conv2d)][-1]
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    bicubic = method.data.rgb(method.degrade(method.data.normalize(PICTURES)))
    torch.testing.assert_close(method.enlarge(method.blur(PICTURES)), bicubic)


class Narrow(nn.Module):
    """A VGG-19 of 1/32 of the channels where timm's would be."""

    def __init__(self) -> None:
        super().__init__()
        widths: list[Any] = [v if v == "M" else v // 32 for v in cfgs["E"]]
        self.model = nn.Module()
        self.model.features = make_layers(widths)


def test_phi54_is_the_sixteenth_convolution_after_its_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    vgg, real = Narrow(), backbones.build
    fakes = {"vgg19": lambda *_, **__: vgg, "small": real}
    monkeypatch.setattr(backbones, "build", lambda name, *a, **k: fakes[name](name, *a, **k))
    method = make(content="vgg", pretrain_share=0.0)
    assert any("ImageNet labels" in note for note in method.backbone.notes)
    assert not any(p.requires_grad for p in method.phi.parameters())

    def phi(rgb: Tensor) -> Tensor:
        x = (rgb - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
            [0.229, 0.224, 0.225]
        )[:, None, None]
        convolutions = 0
        for layer in vgg.model.features:
            x = layer(x)
            convolutions += isinstance(layer, nn.Conv2d)
            if convolutions == 16 and isinstance(layer, nn.ReLU):
                return x
        raise AssertionError("there are fewer than 16 convolutions")

    torch.testing.assert_close(method.phi(PICTURES), phi(PICTURES))
    batch = conformance.memorised(method)
    sharp = batch.view("picture")
    made = method.enlarge(method.blur(sharp))
    content = ((phi(made) - phi(sharp)) / 12.75).square().mean()
    adversarial = -method.discriminator(2 * made - 1).sigmoid().log().mean()
    loss = method.loss(batch, conformance.step_at("generator", 0))
    torch.testing.assert_close(loss, content + 1e-3 * adversarial)


def test_missing_vgg_weights_are_told_in_one_line(tmp_path: Any) -> None:
    with pytest.raises(BenchError, match=r"there is no weights file .*method\.content=pixel$"):
        Phi54(32, str(tmp_path / "vgg19.pth"))


@pytest.mark.parametrize(("size", "scale"), [(30, 4), (16, 8)])
def test_sizes_that_cannot_be_shrunk_are_refused(size: int, scale: int) -> None:
    with pytest.raises(BenchError, match=f"of {size} px by {scale} to whole pixels"):
        make(size=size, scale=scale)


def test_vgg_as_content_is_declared_to_use_labels() -> None:
    method = conformance.build(SuperResolution, "super_resolution")
    assert not method.uses_labels
    method.cfg = method.cfg.model_copy(update={"content": "vgg"})
    assert method.uses_labels
