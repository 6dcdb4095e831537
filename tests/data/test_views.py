"""Rendering whole views: what is fused and cut up must change nothing."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bench.api import DataInfo, View
from bench.data import ops, views
from bench.data.views import eval_view, render
from bench.rng import generator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = ops.Normalize(mean=MEAN, std=STD)
SIMCLR = (
    ops.RandomResizedCrop(scale=(0.08, 1.0)),
    ops.HorizontalFlip(),
    ops.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.8),
    ops.Grayscale(p=0.2),
    ops.GaussianBlur(),
    NORMALIZE,
)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(256, (40, 3, 32, 32), generator=generator("pixels"), dtype=torch.uint8)


def info(size: int) -> DataInfo:
    return DataInfo("toy", "0", size, ("a", "b"), 10, MEAN, STD)


def plainly(view: View, pixels: Tensor, seed: int, aspect: Tensor | None = None) -> Tensor:
    """The view, one operation after the other on the whole batch, at the stored size."""
    rng, x = generator(seed), pixels / 255
    for op in view.ops:
        x = op.apply(x, op.sample(len(x), rng, (x.shape[2], x.shape[3]), aspect))
        if isinstance(op, ops.RandomResizedCrop | ops.CenterCrop):
            aspect = None
    return x


@pytest.mark.parametrize(
    "steps",
    [
        SIMCLR,
        (ops.RandomCrop(padding=4), ops.HorizontalFlip(), NORMALIZE, ops.Cutout(size=9)),
        (ops.RandAugment(), ops.HorizontalFlip(), ops.HorizontalFlip()),
        (ops.RandomCrop(), ops.HorizontalFlip(p=0.9), ops.HorizontalFlip(p=0.9), ops.Solarize()),
        (ops.HorizontalFlip(), ops.CenterCrop(), ops.HorizontalFlip(), ops.RandomResizedCrop()),
        (ops.ColorJitter(hue=0.3), ops.RandomResizedCrop()),
        (),
    ],
    ids=lambda steps: "-".join(type(op).__name__ for op in steps) or "nothing",
)
@pytest.mark.parametrize("squashed", [False, True])
def test_a_view_is_its_operations_in_order(pixels, steps, squashed):
    view = View("v", steps)
    aspect = torch.linspace(0.5, 2, len(pixels)) if squashed else None
    (found,) = render(view, pixels, generator(3), aspect)
    expected = plainly(view, pixels, 3, aspect)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert found.is_contiguous() and found.dtype == torch.float32


def test_draws_do_not_depend_on_parts_or_threads(pixels, monkeypatch):
    view = View("v", SIMCLR, count=2)
    expected = render(view, pixels, generator(5))
    threads = torch.get_num_threads()
    try:
        for cached, count in ((1, 1), (7 * 3 * 32 * 32, 3), (2**30, 2)):
            monkeypatch.setattr(views, "CACHED", cached)
            torch.set_num_threads(count)
            found = render(view, pixels, generator(5))
            assert torch.get_num_threads() == count
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    finally:
        torch.set_num_threads(threads)


def test_renderings_differ_and_repeat(pixels):
    view = View("v", SIMCLR, count=3)
    rng, before = generator(1), pixels.clone()
    first = render(view, pixels, rng)
    assert pixels.equal(before), "the stored pictures were changed"
    assert len(first) == 3
    assert not first[0].equal(first[1]) and not first[1].equal(first[2])
    assert all(a.equal(b) for a, b in zip(first, render(view, pixels, generator(1)), strict=True))
    assert not first[0].equal(render(view, pixels, rng)[0]), "the generator did not move on"


def test_each_picture_has_draws_of_its_own(pixels):
    same = pixels[:1].expand(64, -1, -1, -1)
    (found,) = render(View("v", SIMCLR), same, generator(1))
    assert len(found.flatten(1).unique(dim=0)) == 64


@pytest.mark.parametrize("size", [20, 48])
def test_every_view_has_its_declared_size(pixels, size):
    (plain,) = render(View("v", (), size), pixels, generator(1))
    expected = F.resize(pixels / 255, [size, size], antialias=True)
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=0)
    (cropped,) = render(View("v", SIMCLR, size), pixels, generator(1))
    assert cropped.shape == (len(pixels), 3, size, size)


def test_pictures_may_be_oblong(pixels):
    oblong = pixels[:, :, :24]
    assert render(View("v", SIMCLR), oblong, generator(1))[0].shape == (40, 3, 24, 32)
    assert render(View("v", SIMCLR, 16), oblong, generator(1))[0].shape == (40, 3, 16, 16)


def test_no_pictures_give_no_views(pixels):
    assert render(View("v", SIMCLR), pixels[:0], generator(1))[0].shape == (0, 3, 32, 32)


def test_an_error_in_a_thread_is_raised(pixels):
    class Broken(ops.HorizontalFlip):
        def apply(self, x, params):
            raise RuntimeError("broken")

    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        render(View("v", (Broken(),)), pixels, generator(1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("stored", "size"), [(32, None), (96, 64), (64, 96)])
def test_small_pictures_are_evaluated_whole(stored, size):
    pixels = torch.randint(256, (4, 3, stored, stored), generator=generator(1), dtype=torch.uint8)
    view = eval_view(info(stored), size)
    (found,) = render(view, pixels, generator(1))
    side = size or stored
    expected = F.normalize(F.resize(pixels / 255, [side, side], antialias=True), MEAN, STD)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert view.name == "eval" and view.size == side


@pytest.mark.parametrize(("size", "side"), [(None, 224), (64, 64)])
def test_large_pictures_are_evaluated_at_their_centre(size, side):
    pixels = torch.randint(256, (2, 3, 256, 256), generator=generator(1), dtype=torch.uint8)
    (found,) = render(eval_view(info(256), size), pixels, generator(1))
    center = F.resize(F.center_crop(pixels / 255, [224, 224]), [side, side], antialias=True)
    torch.testing.assert_close(found, F.normalize(center, MEAN, STD), atol=1e-4, rtol=0)


def test_squashed_pictures_are_evaluated_in_their_true_shape():
    # A true 512 x 256 picture of a horizontal ramp, stored squashed to 256 x 256.
    ramp = torch.linspace(0, 255, 256).round().byte().expand(1, 3, 256, 256)
    (found,) = render(eval_view(info(256)), ramp, generator(1), torch.tensor([2.0]))
    row = found[0, 0, 0] * STD[0] + MEAN[0]
    inner = torch.tensor([0.5 - 0.875 / 4, 0.5 + 0.875 / 4])
    torch.testing.assert_close(row[[0, -1]], inner, atol=0.01, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rendering_on_a_gpu_never_waits_and_agrees_with_the_cpu(pixels):
    device = torch.device("cuda")
    for op in (*SIMCLR, ops.RandAugment(), ops.Cutout(size=8), ops.RandomCrop(), ops.CenterCrop()):
        params = op.sample(len(pixels), generator(1), (32, 32), None)
        expected = op.apply(pixels / 255, params)
        found = op.apply(pixels.to(device) / 255, {k: v.to(device) for k, v in params.items()})
        close = ((found.cpu() - expected).abs() < 1e-4).float().mean()
        assert close > 0.999, type(op).__name__
    view, stored = View("v", (*SIMCLR, ops.RandAugment()), 24, count=2), pixels.to(device)
    render(view, stored, generator(1, device=device))  # constants are copied once
    rng = generator(2, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = render(view, stored, rng)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(x.is_cuda and x.isfinite().all() for x in found)
