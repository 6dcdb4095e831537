"""Principal components against scikit-learn's."""

from __future__ import annotations

import torch
from sklearn.decomposition import PCA

from bench import rng
from bench.nn.whiten import principal_components

MIXED = torch.randn(50, 6, generator=rng.generator("pca"), dtype=torch.float64) @ torch.randn(
    6, 6, generator=rng.generator("mix"), dtype=torch.float64
)


def test_components_and_whitening_are_scikit_learns() -> None:
    found = principal_components(MIXED, 4)
    theirs = PCA(4, whiten=True).fit(MIXED.numpy())
    axes = torch.from_numpy(theirs.components_)
    signs = (found.axes * axes).sum(1, keepdim=True).sign()
    torch.testing.assert_close(found.axes, axes * signs)
    torch.testing.assert_close(
        found.variance * 50 / 49, torch.from_numpy(theirs.explained_variance_)
    )
    expected = torch.from_numpy(theirs.transform(MIXED.numpy())) * signs.T * (50 / 49) ** 0.5
    torch.testing.assert_close(found.whiten(MIXED), expected)


def test_signs_do_not_depend_on_the_solver() -> None:
    axes = principal_components(MIXED, 6).axes
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()


def test_directions_without_variance_become_zero() -> None:
    flat = MIXED.float().clone()
    flat[:, 5] = flat[:, 0] + flat[:, 1]
    whitened = principal_components(flat, 6).whiten(flat)
    torch.testing.assert_close(whitened.var(0, correction=0)[:5], torch.ones(5), atol=1e-3, rtol=0)
    assert (whitened[:, 5] == 0).all()
