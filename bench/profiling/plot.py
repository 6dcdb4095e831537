"""One op's profile drawn: time and memory against N, with the roof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.eval.figures import FAINT, HEAD, PLAIN, blank, plain, png
from bench.record.profile import LossProfile, LossRow
from bench.record.units import sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, HIGH, LEFT, BELOW, BETWEEN, KEY = 330, 250, 66, 46, 40, 170  # px
COLORS = {
    "reference": "#57606a",
    "triton": "#cf222e",
    "triton-ieee": "#e5727a",
    "compile": "#0969da",
    "eager": "#24292f",
    "eager-compile": "#54aeff",
    "lightly": "#1a7f37",
    "open_clip": "#8250df",
    "flex_attention": "#bf8700",
}
OTHERS = ("#bc4c00", "#0f766e", "#a21caf", "#4d7c0f", "#7c2d12")
ROOF, OVER = "the roof", "out of memory"


def draw(profile: LossProfile, op: str) -> bytes:
    """The PNG of `op`: a row of two panels for each dim, keys and type, log-log."""
    rows = [row for row in profile.rows if row.op == op]
    sorts = list(dict.fromkeys((row.dim, row.keys, row.dtype) for row in rows))
    width = 2 * (LEFT + WIDE) + KEY
    device = profile.environment.device
    device = profile.environment.cpu if device == "cpu" else device
    note = "; ".join(
        (f"median ms and peak bytes beyond the inputs, against N; {device}", *rows[0].notes[:1])
    )
    figure, height = blank(width, HEAD + len(sorts) * (HIGH + BELOW + BETWEEN), op, note)
    seen = [row for row in rows if row.both or row.forward or _over(row)]
    colors = _colors([row.provider for row in seen])
    for number, sort in enumerate(sorts):
        some = [row for row in rows if (row.dim, row.keys, row.dtype) == sort]
        bottom = height - HEAD - BETWEEN - HIGH - number * (HIGH + BELOW + BETWEEN)
        for column in range(2):
            left = LEFT + column * (LEFT + WIDE)
            box = (left / width, bottom / height, WIDE / width, HIGH / height)
            axes = figure.add_axes(box)
            drawn = (_times if column == 0 else _bytes)(axes, some, colors)
            whole = "forward and backward" if any(row.both for row in some) else "forward"
            axes.set_title(
                f"{f'{whole}, ms' if column == 0 else 'peak memory, MiB'}  ·  {sizes(*sort)}",
                fontsize=8,
                color=PLAIN,
                pad=6,
            )
            _style(axes, some, drawn)
    _key(figure, colors, width, height)
    return png(figure)


def _times(axes: Axes, rows: Sequence[LossRow], colors: dict[str, str]) -> bool:
    """Whether anything could be drawn, as below."""
    for provider, color in colors.items():
        mine = [row for row in rows if row.provider == provider]
        shown = [(row.batch, row.both or row.forward) for row in mine]
        points = [(batch, times) for batch, times in shown if times is not None]
        if points:
            at = [batch for batch, _ in points]
            axes.plot(at, [t.median for _, t in points], "o-", color=color, ms=3, lw=1.4)
            low, high = [t.p10 for _, t in points], [t.p90 for _, t in points]
            axes.fill_between(at, low, high, color=color, alpha=0.15, lw=0)
    floors = {row.batch: row.floor_ms for row in rows if row.floor_ms}
    axes.plot(list(floors), list(floors.values()), "--", color="black", lw=1)
    return bool(axes.collections or floors)


def _bytes(axes: Axes, rows: Sequence[LossRow], colors: dict[str, str]) -> bool:
    drawn = False
    for provider, color in colors.items():
        mine = [row for row in rows if row.provider == provider]
        points = [(r.batch, r.memory.peak / 2**20) for r in mine if r.memory.peak]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, ms=3, lw=1.4)
            drawn = True
    for number, (provider, color) in enumerate(colors.items()):
        at = [row.batch for row in filter(_over, rows) if row.provider == provider]
        # At the upper edge, whatever the scale, and no mark over another.
        edge = [0.98 - 0.03 * number] * len(at)
        axes.plot(at, edge, "x", ms=4, color=color, transform=axes.get_xaxis_transform())
    return drawn


def _over(row: LossRow) -> bool:
    return row.reason is not None and row.reason.startswith(OVER)


def _style(axes: Axes, rows: Sequence[LossRow], drawn: bool) -> None:
    from matplotlib.ticker import LogLocator

    batches = sorted({row.batch for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xlim(batches[0] / 1.4, batches[-1] * 1.4)
    axes.set_xticks(batches, [f"{n:,}" if n < 10_000 else f"{n / 1024:.0f}k" for n in batches])
    if drawn:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:  # an op that works in place takes nothing, and a logarithm knows no 0
        axes.set_yticks([])
        middle = axes.transAxes
        axes.text(0.5, 0.5, "none, or not measured", fontsize=8, ha="center", transform=middle)
    axes.minorticks_off()
    axes.tick_params(labelsize=6.5, color=FAINT, labelcolor=PLAIN, length=2)
    axes.grid(color=FAINT, lw=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _key(figure: Figure, colors: dict[str, str], width: int, height: int) -> None:
    x = (2 * (LEFT + WIDE) + 18) / width
    entries = [*((name, "●", color) for name, color in colors.items())]
    entries += [(ROOF, "- -", "black"), (OVER, "x", PLAIN)]
    for number, (name, mark, color) in enumerate(entries):
        y = 1 - (HEAD + BETWEEN + 8 + 17 * number) / height
        figure.text(x, y, mark, fontsize=8, color=color, va="center")
        figure.text(x + 20 / width, y, plain(name), fontsize=7.5, color=PLAIN, va="center")


def _colors(providers: Sequence[str]) -> dict[str, str]:
    spare = iter(OTHERS)
    return {name: COLORS.get(name) or next(spare, "#000000") for name in dict.fromkeys(providers)}
