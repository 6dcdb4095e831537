"""Units: the pictures that excite a unit most, whether they are of one class, and what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import one_hot

from bench.api import Encoder, EvalData, EvalSplit, Metric, Panel, Protocol, Scores
from bench.errors import BenchError
from bench.eval.figures import contact_sheet, overlay
from bench.eval.sampling import pictures
from bench.eval.scoring import class_labels, require_finite
from bench.kernels.knn_topk.keys import from_sort_keys, sort_keys
from bench.rng import generator

TOP = 9  # pictures of a unit, as DeepCluster's authors show (arXiv:1807.05520, Figure 5)
BATCH = 256
DRAWS = 10_000  # of nine pictures, for what chance gives


class Units(Protocol):
    """Purity of a unit's top nine test pictures: the share of the most frequent class, over units.

    A unit is a channel of a layer, as active as at its most active position, or a number of the
    output, whose purity is the row's number. A unit that is the same for every picture selects
    nothing: its purity is 0, and it counts among `dead_units`. `top9_chance` is the purity of nine
    pictures drawn at random. The figure shows, of the purest units, the nine pictures and an
    occlusion map of the first: how much the unit loses where a grey square hides the picture
    (Zhou et al., arXiv:1412.6856, section 3.2).
    """

    metric = Metric("top9_purity")

    toy = {"shown": 2}

    class Config(Protocol.Config):
        """The constants."""

        shown: PositiveInt = 8  # units in the figure
        # Zhou's squares have 11 of 227 px; of small pictures that is nothing, so a quarter here,
        # moved by Zhou's 3/11 of their side.
        occluder: float = Field(0.25, gt=0, le=1)
        stride: float = Field(3 / 11, gt=0, le=1)

    @torch.no_grad()
    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused, as nothing depends on it.

        Raises:
            BenchError: labels are missing, test has fewer than 9 pictures, or features are not
                finite.
        """
        test = data.read_test()
        class_labels(test)  # says what is missing
        truth = test.split.labels
        assert truth is not None
        layers, classes = (*encoder.layers, "output"), data.info.num_classes
        seen, tops = top_pictures(encoder, test, layers)
        if len(seen) < TOP:
            raise BenchError(
                f"protocol units shows {TOP} pictures of each unit and the test split of "
                f"{data.info.name} has {len(seen)}; use more"
            )
        chance = _chance(truth[seen], classes)
        per_layer, found = {}, {}
        for layer, top in tops.items():
            counts = one_hot(truth[top.positions], classes).sum(0)  # [U, C]
            purity = torch.where(top.dead, 0.0, counts.amax(1).double() / TOP)
            found[layer] = purity, counts.argmax(1)
            per_layer[layer] = {
                "top9_purity": 100 * purity.mean().item(),
                "dead_units": 100 * top.dead.double().mean().item(),
                "top9_chance": chance,
            }
        shown = _purest(*found["output"], cfg.shown)
        metrics = per_layer["output"]
        return Scores(
            metrics=metrics,
            per_layer=per_layer,
            selected={"units": shown},
            figure=contact_sheet(
                _rows(encoder, test, tops["output"], shown, truth, cfg),
                f"Units of the output and the test pictures that excite them · {data.info.name}",
                ("lost if hidden", "the unit's top nine: its most frequent class green"),
                note=f"top-9 purity {metrics['top9_purity']:.1f} % over all units (chance "
                f"{chance:.1f} %) · {metrics['dead_units']:.0f} % dead · shown are the purest, "
                "of different classes where there are",
            ),
        )


@dataclass(frozen=True)
class Top:
    """Of the U units of a layer: where their top pictures are, best first, and which are dead."""

    positions: Tensor  # [TOP, U] in the split, on the CPU
    dead: Tensor  # [U] bool: the same for every picture


def activations(encoder: Encoder, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """How active each unit is on pictures `[B, 3, s, s]`, `[B, U]` by layer."""
    output, maps = encoder.tap(x)
    return require_finite(
        {k: (output if k == "output" else maps[k].amax((2, 3))).float() for k in layers}
    )


def top_pictures(
    encoder: Encoder, split: EvalSplit, layers: Sequence[str]
) -> tuple[Tensor, dict[str, Top]]:
    """The positions `[N]` of the pictures of `split` that can be decoded, and each layer's `Top`.

    Of pictures that excite a unit equally the first come first. Memory does not grow with N.
    """
    best: dict[str, Tensor] = {}
    least: dict[str, Tensor] = {}
    seen = []
    for index, x in split.batches(torch.arange(len(split.split)).split(BATCH)):
        seen.append(index.cpu())
        for layer, values in activations(encoder, x, layers).items():
            low, keys = values.amin(0), sort_keys(values, index[:, None])
            if layer in best:
                low, keys = torch.minimum(low, least[layer]), torch.cat([best[layer], keys])
            least[layer], best[layer] = low, keys.topk(min(TOP, len(keys)), dim=0).values
    tops = {}
    for layer, keys in best.items():
        values, positions = from_sort_keys(keys)
        tops[layer] = Top(positions.cpu(), (values[0] <= least[layer]).cpu())
    return torch.cat(seen) if seen else torch.empty(0, dtype=torch.int64), tops


def occlusion(
    encoder: Encoder, x: Tensor, unit: int, occluder: float = 0.25, stride: float = 3 / 11
) -> Tensor:
    """How much a unit of the output loses, on average, where a grey square hides a pixel.

    Args:
        encoder: frozen, in eval mode.
        x: a picture `[3, s, s]`, normalised: 0 is the mean colour of the data.
        unit: of the output.
        occluder: the square's side, as a share of the picture's.
        stride: by which it is moved, as a share of its side.

    Returns:
        `[s, s]`; 0 where the unit gains.
    """
    size = x.shape[-1]
    side = max(1, round(occluder * size))
    last = size - side
    steps = sorted({*range(0, last + 1, max(1, round(stride * side))), last})
    corners = torch.tensor(list(product(steps, steps)), device=x.device)
    at = torch.arange(size, device=x.device)
    inside = (at >= corners[..., None]) & (at < corners[..., None] + side)  # [P, 2, s]
    hidden = inside[:, 0, :, None] & inside[:, 1, None, :]  # [P, s, s]
    whole = encoder(x[None])[0, unit]
    lost = [
        whole - encoder(x.masked_fill(some[:, None], 0.0))[:, unit] for some in hidden.split(BATCH)
    ]
    weight = hidden.float()
    mean = torch.einsum("p,phw->hw", torch.cat(lost).float(), weight) / weight.sum(0)
    return mean.clamp_min(0)


def _rows(
    encoder: Encoder, test: EvalSplit, top: Top, shown: list[int], truth: Tensor, cfg: Any
) -> list[Panel]:
    """A row for each unit that is shown: the occlusion map of its first picture, then the nine."""
    rows = []
    for unit in shown:
        places = top.positions[:, unit]
        tiles, labels = pictures(test, places), truth[places].tolist()
        ((_, first),) = test.batches([places[:1]])
        heat = occlusion(encoder, first[0], unit, cfg.occluder, cfg.stride).cpu()
        own = max(sorted(set(labels)), key=labels.count)
        classes = test.info.classes
        rows.append(
            Panel(
                f"unit {unit}\n{classes[own]}\n{labels.count(own)} of {TOP}",
                torch.cat([overlay(tiles[0], heat)[None], tiles]),
                ("", *(classes[c] for c in labels)),
                tuple(c == own for c in labels),
            )
        )
    return rows


def _purest(purity: Tensor, own: Tensor, count: int) -> list[int]:
    """The `count` units `[U]` of greatest purity: one of each class first, then further ones."""
    order = purity.argsort(descending=True, stable=True).tolist()
    firsts = {int(own[unit]): unit for unit in reversed(order)}
    further = [unit for unit in order if firsts[int(own[unit])] != unit]
    best = sorted(firsts.values(), key=order.index)
    return [*best, *further][:count]


def _chance(labels: Tensor, classes: int) -> float:
    """The mean purity, in percent, of nine labels of `[N]` drawn at random, with replacement."""
    drawn = torch.randint(len(labels), (DRAWS, TOP), generator=generator("units", "chance"))
    return 100 * one_hot(labels[drawn], classes).sum(1).amax(1).double().mean().item() / TOP
