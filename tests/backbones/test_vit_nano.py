"""The small vision transformer: each patch is embedded by itself, and tokens can be masked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench import backbones, rng
from bench.api import Backbone
from bench.errors import BenchError


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=rng.generator("vit"))


@pytest.fixture(scope="module")
def vit() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return backbones.build("vit_nano_patch8", 32).eval()


def test_no_pixel_enters_another_patch(vit: Backbone) -> None:
    stem = vit.get_submodule("model.patch_embed.proj")
    x = pictures().requires_grad_()
    (gradient,) = torch.autograd.grad(stem(x)[:, :, 1, 2].square().sum(), x)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:16, 16:24] = True
    seen = gradient.abs().sum((0, 1)) > 0
    assert seen[inside].all() and not seen[~inside].any()


def test_a_masked_patch_is_unseen_and_its_token_is_learnt(vit: Backbone) -> None:
    x = pictures().requires_grad_()
    token = torch.zeros(vit.dim, requires_grad=True)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 6] = True  # row 1, column 2
    out = vit.tokens(x, mask=mask, mask_token=token)
    assert out.shape == (2, 17, vit.dim)
    to_x, to_token = torch.autograd.grad(out.square().sum(), (x, token))
    assert not to_x[:, :, 8:16, 16:24].any() and to_x[:, :, :8].any()
    assert to_token.abs().sum() > 0


def test_without_a_mask_nothing_changes(vit: Backbone) -> None:
    x, none = pictures(), torch.zeros(2, 16, dtype=torch.bool)
    same = vit.tokens(x, mask=none, mask_token=torch.ones(vit.dim))
    torch.testing.assert_close(same, vit.tokens(x), rtol=0, atol=0)
    torch.testing.assert_close(vit(x), vit.tokens(x)[:, 0], rtol=0, atol=0)


def test_smaller_crops_have_fewer_patches(vit: Backbone) -> None:
    assert vit.tokens(pictures()[:, :, :16, :16]).shape == (2, 5, vit.dim)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"patch_size": 6}, "power of two"), ({"num_heads": 5}, "could not build")],
)
def test_impossible_shapes_are_told(options: dict[str, int], says: str) -> None:
    with pytest.raises(BenchError, match=says):
        backbones.build("vit_nano_patch8", 32, **options)
