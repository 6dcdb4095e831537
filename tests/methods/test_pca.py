"""The PCA baseline against scikit-learn's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn import decomposition
from torch import nn
from torch.nn import functional as F

from bench import backbones, conformance, rng
from bench.data.dataset import MemoryImages
from bench.errors import BenchError
from bench.loader import Loader
from methods.pca import PCA

DIM = 10


def fitted(size: int = 12, side: int = 12, whiten: bool = False) -> tuple[PCA, torch.Tensor]:
    """The method after `initialize`, and the pictures it saw, normalised."""
    pixels = torch.rand(64, 3, size, size, generator=rng.generator("pca", size)) * 255
    split = replace(conformance.toy_split(), images=MemoryImages(pixels.to(torch.uint8)))
    cfg = PCA.Config(dim=DIM, side=side, whiten=whiten)
    info = replace(conformance.toy_info(), size=size)
    method = PCA(cfg, backbones.build("small", size), info)
    train = Loader(method, split, 0, torch.device("cpu")).pictures()
    method.initialize(train)
    return method, train.features(nn.Flatten()).unflatten(1, (3, size, size))


@pytest.mark.parametrize("whiten", [False, True])
def test_coordinates_are_scikit_learns_but_for_signs(whiten: bool) -> None:
    method, x = fitted(whiten=whiten)
    reference = decomposition.PCA(DIM, whiten=whiten, svd_solver="full")
    expected = torch.from_numpy(reference.fit_transform(x.double().flatten(1).numpy()))
    expected = expected * (64 / 63) ** 0.5 if whiten else expected
    got = method.encoder()(x).double()
    assert got.shape == (64, DIM)
    torch.testing.assert_close(got.abs(), expected.abs(), rtol=1e-3, atol=1e-3)


def test_larger_pictures_are_averaged_down_first() -> None:
    method, x = fitted(size=64, side=8)
    small = F.interpolate(x, (8, 8), mode="bilinear", antialias=True).flatten(1)
    expected = decomposition.PCA(DIM, svd_solver="full").fit_transform(small.double().numpy())
    got = method.encoder()(x).double()
    torch.testing.assert_close(got.abs(), torch.from_numpy(expected).abs(), rtol=1e-3, atol=1e-3)


def test_more_components_leave_more_of_the_picture() -> None:
    cfg = PCA.Config(dim=DIM, side=8)
    method = PCA(cfg, backbones.build("small", 32), conformance.toy_info())
    batch = conformance.memorised(method)
    with torch.no_grad():
        panels = method.picture(batch, conformance.step_at("main", 0))
    assert [tuple(panel.tiles.shape) for panel in panels] == [(8, 3, 8, 8)] * 4
    original, few, all_of_them = (panel.tiles for panel in panels[:3])
    errors = [(again - original).square().mean() for again in (few, all_of_them)]
    assert 0 < errors[1] < errors[0] < original.var()
    assert panels[3].captions[:2] == ("mean", "component 1")


def test_fewer_pictures_than_components_is_one_clear_line() -> None:
    with pytest.raises(BenchError, match="as many training pictures as components, 256, not 64"):
        PCA(PCA.Config(), backbones.build("small", 32), conformance.toy_info())
