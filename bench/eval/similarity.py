"""How alike two representations of the same pictures are: dissimilarity matrices, and CKA.

Everything is computed in float64, as differences of large sums are taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.rng import generator

# Features are float32: what varies by less than this share of itself varies by rounding.
ROUNDING = 1e-6
DECIMALS = 12  # of a correlation in float64: beyond it, equals would be told apart by rounding
CHUNK = 2**22  # permuted pairs held at once: 32 MiB


def rdm(x: Tensor) -> Tensor:
    """The representational dissimilarity matrix: 1 - Pearson between every two rows.

    Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008. A row whose values are all the same has
    no correlation; it counts as 0, so that its dissimilarity to every other row is 1.

    Args:
        x: `[N, D]` features of N pictures.

    Returns:
        `[N, N]` float64 in [0, 2], symmetric, 0 on the diagonal.
    """
    x = x.double()
    centred = x - x.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    flat = length <= ROUNDING * x.norm(dim=1, keepdim=True)
    unit = torch.where(flat, 0.0, centred / length)
    return torch.round(1 - unit @ unit.T, decimals=DECIMALS).fill_diagonal_(0.0)


def category_rdm(labels: Tensor) -> Tensor:
    """The model in which only the class counts: 0 within a class and 1 across, `[N, N]` float64."""
    return (labels[:, None] != labels).double()


def upper(matrix: Tensor) -> Tensor:
    """The entries of `[N, N]` above the diagonal, row after row, `[N (N - 1) / 2]`."""
    row, column = torch.triu_indices(len(matrix), len(matrix), 1, device=matrix.device)
    return matrix[row, column]


def ranks(values: Tensor) -> Tensor:
    """The rank of each of `values` `[N]` from 1, float64; equals share the mean of theirs."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    mean: Tensor = (count.cumsum(0) - (count - 1) / 2).double()
    return mean[place]


def spearman(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two vectors `[N]`, 0 where either is constant."""
    return float(_unit(ranks(one)) @ _unit(ranks(other)))


def mantel(one: Tensor, other: Tensor, permutations: int, *name: str | int) -> tuple[float, float]:
    """Spearman's correlation of two dissimilarity matrices, and how often chance does as well.

    The pictures of `other` are permuted, rows and columns alike, since the entries of a matrix are
    not independent (Mantel 1967).

    Args:
        one: `[N, N]` symmetric.
        other: `[N, N]` symmetric.
        permutations: how many are drawn.
        *name: names the draw.

    Returns:
        The correlation, and p = (1 + permutations that reach it) / (1 + permutations), one-sided.
    """
    n, device = len(one), one.device
    row, column = torch.triu_indices(n, n, 1, device=device)
    fixed, moved = _unit(ranks(upper(one))), torch.zeros(n, n, dtype=torch.float64, device=device)
    moved[row, column] = moved[column, row] = _unit(ranks(upper(other)))
    found = fixed @ moved[row, column]
    draws = torch.rand(permutations, n, generator=generator("mantel", *name))
    reached = 0
    for some in draws.argsort(1).to(device).split(max(1, CHUNK // max(1, len(row)))):
        by_chance = moved[some[:, row], some[:, column]] @ fixed
        # Another order of the same sum may differ in its last bits.
        reached += int((by_chance >= found - 10**-DECIMALS).sum())
    return float(found), (1 + reached) / (1 + permutations)


def gram(x: Tensor) -> Tensor:
    """Inner products `[N, N]`, float64, of the rows of `x` `[N, D]` after centring each dimension.

    Where all rows are the same but for rounding, it is zero.
    """
    x = x.double()
    centred = x - x.mean(0)
    if centred.norm() <= ROUNDING * x.norm():
        centred = torch.zeros_like(centred)
    return centred @ centred.T


def u_centred(matrix: Tensor) -> Tensor:
    """What is above the diagonal of a Gram matrix `[N, N]` once it is U-centred, N of at least 4.

    The inner product of two such vectors is N (N - 3) / 2 times the unbiased estimate of HSIC
    (Song et al. 2012, JMLR 13:1393; in this form Székely and Rizzo 2014, arXiv:1310.2926), which
    takes no notice of the diagonal.
    """
    n = len(matrix)
    hollow = matrix.clone().fill_diagonal_(0.0)
    sums = hollow.sum(0) / (n - 2)
    return upper(hollow - sums - sums[:, None] + sums.sum() / (n - 1))


def linear_cka(one: Tensor, other: Tensor, unbiased: bool = True) -> float:
    """Linear centred kernel alignment of two representations of the same N pictures.

    Kornblith et al., arXiv:1905.00414. The biased estimate lies in [0, 1] and nears 1 for any two
    representations as the number of dimensions outgrows N; the unbiased one (Nguyen et al.,
    arXiv:2010.15327) is 0 on average for unrelated ones, hence now and then below. A representation
    without variance has 0 with any.

    Args:
        one: `[N, D]`, N of at least 4.
        other: `[N, E]`.
        unbiased: which estimate of HSIC to use.
    """
    grams = gram(one), gram(other)
    if unbiased:
        return cosine(u_centred(grams[0]), u_centred(grams[1]))
    return cosine(grams[0].flatten(), grams[1].flatten())


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of two vectors, in float64; 0 where either is zero."""
    one, other = one.double(), other.double()
    length = float(one.norm() * other.norm())
    return float(one @ other) / length if length else 0.0


def _unit(values: Tensor) -> Tensor:
    """`values` `[N]` centred and at length 1, or zeros where they are all the same."""
    centred = values - values.mean()
    length = centred.norm()
    return torch.where(length > ROUNDING, centred / length, 0.0)
