"""Figures that protocols leave beside their numbers: contact sheets, grids, heat maps, scatters.

Each function returns the bytes of a PNG. The same input gives the same bytes, and as results are
kept in a repository, tiles are shown with few pixels and colours come from a palette.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bench.api import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, BAD, PLAIN, FAINT = "#1a7f37", "#cf222e", "#444444", "#d0d7de"
DPI = 110
TILE, DETAIL = 96, 48  # px: a tile's side, and how much of a larger picture it shows
GAP, FRAME, CAPTION, HEAD = 8, 4, 14, 58  # px
SIDE = 110  # px: room for a row's title
SHORT = 16  # characters of a class's name that are shown
LEGEND = 20  # classes, at most, that a reader can tell apart by colour
COLORS = 128  # of the palette
LEVELS = 32  # shades of a heat map: more are neither seen nor small


def contact_sheet(
    rows: Sequence[Panel], title: str, headings: tuple[str, str], note: str = ""
) -> bytes:
    """Rows of tiles of which the first stands apart, such as a query and what is nearest to it.

    Tiles after the first are framed by `Panel.good`, one value each, and all have their caption
    below.

    Args:
        rows: at least one; `[n, 3, h, w]` tiles each, h = w.
        title: of the sheet.
        headings: above the first tile, and above the others.
        note: a line below the title.
    """
    columns = max(len(row.tiles) for row in rows)
    tall = TILE + CAPTION + GAP
    width = SIDE + columns * (TILE + GAP) + 2 * GAP
    figure, height = blank(width, HEAD + 18 + len(rows) * tall, title, note)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, plain(text), **style)

    lefts = [SIDE + column * (TILE + GAP) + GAP * (column > 0) for column in range(columns)]
    for left, heading in zip(lefts, headings, strict=False):
        write(left, HEAD + 10, heading, fontsize=7.5, color=PLAIN, va="bottom")
    for number, row in enumerate(rows):
        top = HEAD + 14 + number * tall
        name = "\n".join(_short(line) for line in row.title.splitlines())
        write(GAP, top + TILE / 2, name, fontsize=7.5, va="center", linespacing=1.4)
        for column, tile in enumerate(_shown(row.tiles)):
            color, left = PLAIN, lefts[column]
            if column and row.good:
                color = GOOD if row.good[column - 1] else BAD
                tile = _framed(tile, color)
            figure.figimage(tile, left, height - top - TILE, origin="upper")
            if row.captions:
                at, caption = (left + TILE / 2, top + TILE + 2), _short(row.captions[column])
                write(*at, caption, fontsize=6, color=color, ha="center", va="top")
    return png(figure)


def grid(tiles: Tensor, title: str, note: str = "") -> bytes:
    """All of `tiles` `[n, 3, h, w]`, RGB in [0, 1], row after row in about the shape of a page."""
    about = math.ceil(math.sqrt(1.8 * len(tiles)))
    columns = min(range(about, about + 3), key=lambda count: -len(tiles) % count)
    side = max(24, min(TILE, 900 // columns))
    width = max(columns * (side + 4) + 2 * GAP, 560)
    figure, height = blank(
        width, HEAD + math.ceil(len(tiles) / columns) * (side + 4) + GAP, title, note
    )
    for number, tile in enumerate(_shown(tiles, side)):
        row, column = divmod(number, columns)
        top = HEAD + row * (side + 4)
        figure.figimage(tile, GAP + column * (side + 4), height - top - side, origin="upper")
    return png(figure)


@dataclass(frozen=True)
class HeatMap:
    """A square matrix to draw.

    `names` stand at `ends`, where their groups of rows end (by default every row is one), and
    lines part the groups. With `numbers` each entry is written into its cell.
    """

    title: str
    matrix: Tensor  # [N, N]
    names: Sequence[str]
    ends: Sequence[int] = ()
    numbers: bool = False


def heat_maps(
    maps: Sequence[HeatMap], title: str, scale: str, limits: tuple[float, float], note: str = ""
) -> bytes:
    """Matrices side by side on one scale of colours.

    Args:
        maps: at least one.
        title: of the figure.
        scale: what the colours mean.
        limits: the values of the first and the last colour.
        note: a line below the title.
    """
    side, left, below = 330, 88, 74
    width = max(len(maps) * (side + left) + 110, 640)
    figure, height = blank(width, HEAD + 26 + side + below, title, note)
    for number, shown in enumerate(maps):
        at = left + number * (side + left)
        axes = figure.add_axes((at / width, below / height, side / width, side / height))
        axes.set_title(plain(shown.title), fontsize=8.5, pad=5)
        axes.imshow(
            shown.matrix.cpu().numpy(),
            cmap=_levels(),
            vmin=limits[0],
            vmax=limits[1],
            interpolation="nearest",
        )
        _name_groups(axes, shown)
        if shown.numbers:
            _write_numbers(axes, shown.matrix, limits)
    at = left + (len(maps) - 1) * (side + left) + side + 16
    bar = figure.add_axes((at / width, below / height, 12 / width, side / height))
    figure.colorbar(axes.images[0], cax=bar)
    bar.tick_params(labelsize=6.5, color=PLAIN, labelcolor=PLAIN, length=2)
    bar.set_ylabel(scale, fontsize=7, color=PLAIN)
    return png(figure)


def scatters(
    points: Sequence[tuple[str, Tensor]],
    labels: Tensor,
    classes: Sequence[str],
    title: str,
    note: str = "",
) -> bytes:
    """Maps of the same pictures side by side, coloured by class, with a legend up to 20 classes.

    Args:
        points: the title and the `[N, 2]` places of each.
        labels: `[N]` class of each picture.
        classes: the classes' names.
        title: of the figure.
        note: a line below the title.
    """
    side, legend = 400, 120
    width = len(points) * (side + 2 * GAP) + legend
    figure, height = blank(width, HEAD + 26 + side + 2 * GAP, title, note)
    colors, truth = _palette(len(classes)), labels.cpu().numpy()
    # In a drawn order, or the last class would cover the others.
    order = np.random.default_rng(0).permutation(len(truth))
    for number, (name, place) in enumerate(points):
        at = GAP + number * (side + 2 * GAP)
        axes = figure.add_axes((at / width, GAP / height, side / width, (side + 4) / height))
        axes.set_title(plain(name), fontsize=8.5, pad=5)
        xy = place.cpu().numpy()[order]
        axes.scatter(xy[:, 0], xy[:, 1], s=8, c=colors[truth[order]], linewidths=0)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(FAINT)
    present = [c for c in range(len(classes)) if (truth == c).any()]
    for row, c in enumerate(present if len(classes) <= LEGEND else ()):
        x, y = (width - legend + 4) / width, 1 - (HEAD + 36 + 18 * row) / height
        figure.text(x, y, "●", fontsize=8, color=colors[c], va="center")
        figure.text(x + 14 / width, y, plain(_short(classes[c])), fontsize=7.5, va="center")
    return png(figure)


def overlay(tile: Tensor, heat: Tensor) -> Tensor:
    """A picture `[3, h, w]`, greyed, with `heat` `[h, w]` over it: its greatest value is yellow."""
    from matplotlib import colormaps

    share = (heat / heat.max().clamp_min(1e-12)).clamp(0, 1)
    color = torch.from_numpy(colormaps["inferno"](share.numpy())[..., :3]).permute(2, 0, 1).float()
    return 0.35 * tile.mean(0, keepdim=True) + 0.65 * color


def plain(text: str) -> str:
    """`text` as it is to be read: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def blank(width: int, height: int, title: str, note: str) -> tuple[Figure, int]:
    """An empty figure of `width` x `height` px below its title and a line on it; the height."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    figure.text(GAP / width, 1 - 18 / height, plain(title), fontsize=11, weight="bold", va="center")
    figure.text(GAP / width, 1 - 38 / height, plain(note), fontsize=7.5, color=PLAIN, va="center")
    return figure, height


def png(figure: Figure) -> bytes:
    """The figure in a palette of its own colours, without any note of what drew it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image = image.quantize(COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _shown(tiles: Tensor, side: int = TILE) -> list[NDArray[np.uint8]]:
    """Tiles `[n, 3, h, w]` as pixels `[side, side, 3]` each, grey where not finite."""
    x = tiles.detach().float().cpu().nan_to_num(0.5).clamp(0, 1)
    if x.shape[-1] > min(DETAIL, side):
        x = F.interpolate(x, (min(DETAIL, side),) * 2, mode="area")
    x = F.interpolate(x, (side, side), mode="nearest")
    pixels = (255 * x).round().byte().permute(0, 2, 3, 1).contiguous()
    return [tile.numpy() for tile in pixels]


def _framed(tile: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    framed = np.empty_like(tile)
    framed[:] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    framed[FRAME:-FRAME, FRAME:-FRAME] = tile[FRAME:-FRAME, FRAME:-FRAME]
    return framed


def _short(name: str) -> str:
    return name if len(name) <= SHORT else name[: SHORT - 1] + "…"


def _levels() -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"].resampled(LEVELS)


def _name_groups(axes: Axes, shown: HeatMap) -> None:
    ends = list(shown.ends) or list(range(1, len(shown.names) + 1))
    middles = [(a + b - 1) / 2 for a, b in pairwise([0, *ends])]
    if len(ends) > 2 * LEGEND:  # names would run into one another
        middles = []
    names = [plain(_short(name)) for name in shown.names][: len(middles)]
    axes.set_xticks(middles, names, rotation=90, fontsize=6.5, color=PLAIN)
    axes.set_yticks(middles, names, fontsize=6.5, color=PLAIN)
    axes.tick_params(length=0, pad=2)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color="white", linewidth=0.6)
        axes.axvline(end - 0.5, color="white", linewidth=0.6)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_numbers(axes: Axes, matrix: Tensor, limits: tuple[float, float]) -> None:
    middle, size = sum(limits) / 2, min(9.0, 64 / len(matrix))
    for i, row in enumerate(matrix.tolist()):
        for j, value in enumerate(row):
            color = "white" if value < middle else "black"
            text = f"{value:.2f}".replace("-0.00", "0.00")
            axes.text(j, i, text, fontsize=size, color=color, ha="center", va="center")


def _palette(count: int) -> NDArray[np.float64]:
    from matplotlib import colormaps

    if count <= 10:
        return np.asarray(colormaps["tab10"].colors)  # type: ignore[attr-defined]
    if count <= LEGEND:
        return np.asarray(colormaps["tab20"].colors)  # type: ignore[attr-defined]
    return np.asarray(colormaps["hsv"](np.linspace(0, 1, count, endpoint=False)))[:, :3]
