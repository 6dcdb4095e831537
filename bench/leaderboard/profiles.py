"""What was measured of speed and memory: steps, loss kernels and views, as sections of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from bench.leaderboard.profile_rows import (
    NOT,
    Measured,
    Rows,
    beside,
    folded,
    newest,
    record,
    settings,
)
from bench.leaderboard.tables import markdown
from bench.record.profile import (
    DataProfile,
    DataRow,
    LossProfile,
    LossRow,
    Profile,
    StepProfile,
    StepRow,
)
from bench.record.units import binary, digits, milliseconds, percent, sizes

MEANING = "What each number means, how it was measured and its limits: `docs/profiling.md`."
STAGES = ("views", "forward", "loss", "backward", "optimiser")


def sections(
    profiles: Sequence[tuple[Path, Profile]], link: str
) -> Iterator[tuple[str, list[str]]]:
    """A title and its blocks for each kind of profile that there is.

    Args:
        profiles: oldest first, with their paths within the results folder.
        link: the results folder, seen from the page.
    """
    steps = newest(
        [(path, p, p.rows) for path, p in profiles if isinstance(p, StepProfile)],
        lambda each: tuple(_step(each, phases=False).values()),
    )
    losses = newest(
        [(path, p, p.rows) for path, p in profiles if isinstance(p, LossProfile)],
        lambda each: _size(each.row),
    )
    views = newest(
        [(path, p, p.rows) for path, p in profiles if isinstance(p, DataProfile)],
        lambda each: (each.row.op, each.row.size),
    )
    if steps:
        yield "Training-step speed", _steps(steps, link)
    if losses:
        yield "Loss kernels", _losses(losses, link)
    if views:
        yield "Views", _views(views, link)


def _step(each: Measured[StepRow], *, phases: bool = True) -> dict[str, str]:
    """What a step is of: all by which two of them are different measurements."""
    row = each.row
    told = f" ({', '.join(row.phases)})" if phases and row.phases else ""
    compiled = ["compiled"] if row.compiled else []
    return {
        "method": f"`{row.method}`{told}",
        "by": row.provider,
        "backbone": row.backbone,
        "data": row.data,
        "px": str(row.size),
        "batch": f"{row.batch_size:,}",
        "precision": row.precision,
        "settings": ", ".join([*compiled, *filter(None, [settings(each.profile)])]),
    }


def _size(row: LossRow) -> tuple[object, ...]:
    """An op at a size, all of whose rows were taken in turns."""
    return row.op, row.dtype, row.dim, row.keys, row.batch


def _steps(rows: Rows[StepRow], link: str) -> list[str]:
    def step(row: StepRow) -> str:
        if row.step is None or row.images_per_second is None:
            return NOT
        return f"{row.images_per_second:,.0f} images/s"

    blocks = [
        "The training step that `bench run` takes, warm-up excluded; `bench profile step` measures "
        f"it. {MEANING}",
        beside(rows, _step, step, right=frozenset({"px", "batch"})),
    ]
    for device, some in rows.items():
        table = [
            {
                **_step(each),
                "ms per step (p10-p90)": milliseconds(each.row.step) or NOT,
                **{
                    stage: milliseconds(each.row.stages.get(stage), spread=False)
                    for stage in STAGES
                },
                "of peak": percent(each.row.share),
                "peak memory": _bytes(each.row.memory.peak),
                "saved for backward": _bytes(each.row.memory.saved),
                "GFLOP": "" if each.row.flops is None else digits(each.row.flops / 1e9),
                "record": record(each, link),
            }
            for each in some
        ]
        right = {"ms per step (p10-p90)", *STAGES, "of peak", "peak memory", "saved for backward"}
        blocks.append(folded(device, some, markdown(table, right={*right, "GFLOP", "px", "batch"})))
    return blocks


def _losses(rows: Rows[LossRow], link: str) -> list[str]:
    def largest(row: LossRow) -> str:
        whole = row.both or row.forward
        if whole is None:
            return "out of memory" if (row.reason or "").startswith("out of memory") else NOT
        parts = [f"{digits(whole.median)} ms", f"{percent(row.share)} of the roof"]
        parts += [binary(row.memory.peak)] if row.memory.peak is not None else []
        return f"{sizes(row.dim, row.keys, row.dtype, row.batch)}: {', '.join(parts)}"

    shown = {device: list(_at_largest(some)) for device, some in rows.items()}
    blocks = [
        "Forward and backward of each op of `bench.kernels` (the forward of those without a "
        "backward) at the largest size at which plain torch, `reference`, was timed: median, share "
        "of what the device was measured to do at most, and peak memory beyond the inputs. "
        f"`bench profile losses` measures it. {MEANING}",
        beside(shown, _named, largest),
    ]
    for device, some in rows.items():
        table = [
            {
                "op": f"`{row.op}`",
                "by": f"**{row.provider}**" if row.chosen else row.provider,
                "size": sizes(row.dim, row.keys, row.dtype, row.batch),
                "forward ms": milliseconds(row.forward, spread=False),
                "backward": milliseconds(row.backward, spread=False),
                "both (p10-p90)": milliseconds(row.both) or (row.reason or "").partition(":")[0],
                "clock": times.clock if (times := row.both or row.forward) else "",
                "of roof": percent(row.share),
                "peak": _bytes(row.memory.peak),
                "saved": _bytes(row.memory.saved),
                "record": record(each, link),
            }
            for each in some
            if not ((row := each.row).reason or "").startswith(NOT)
        ]
        right = {"forward ms", "backward", "both (p10-p90)", "of roof", "peak", "saved"}
        told = "In bold, what `auto` takes at that size."
        whole = [told, markdown(table, right=right), *_fits(some), *_pictures(some, link)]
        blocks.append(folded(device, some, "\n\n".join(whole)))
    return blocks


def _views(rows: Rows[DataRow], link: str) -> list[str]:
    def name(each: Measured[DataRow]) -> dict[str, str]:
        row = each.row
        return {
            "op": f"`{row.op}`",
            "by": row.provider,
            "px": str(row.size),
            "batch": f"{row.batch_size:,}" + (", one by one" if row.one_by_one else ""),
        }

    def rate(row: DataRow) -> str:
        return NOT if row.views_per_second is None else f"{row.views_per_second:,.0f} views/s"

    blocks = [
        f"Views made per second; `bench profile data` measures it. {MEANING}",
        beside(rows, name, rate, right=frozenset({"px", "batch"})),
    ]
    for device, some in rows.items():
        links = dict.fromkeys(record(each, link) for each in some)
        blocks.append(folded(device, some, f"Records: {' '.join(links)}"))
    return blocks


def _named(each: Measured[LossRow]) -> dict[str, str]:
    return {"op": f"`{each.row.op}`", "by": each.row.provider}


def _at_largest(rows: Sequence[Measured[LossRow]]) -> Iterator[Measured[LossRow]]:
    """The rows of each op at the largest size at which the reference was timed."""
    for op in dict.fromkeys(each.row.op for each in rows):
        timed = [
            each.row
            for each in rows
            if each.row.op == op and each.row.provider == "reference" and each.row.forward
        ]
        if timed:
            last = max(timed, key=lambda row: row.batch)
            yield from (each for each in rows if _size(each.row) == _size(last))


def _fits(rows: Sequence[Measured[LossRow]]) -> Iterator[str]:
    profiles = {each.path: each.profile for each in rows}.values()
    newest = {
        (fit.op, fit.dtype, fit.dim, fit.keys, fit.memory, fit.provider): fit
        for profile in sorted(profiles, key=lambda each: (each.complete, each.created))
        if isinstance(profile, LossProfile)
        for fit in profile.fits
    }
    table = [
        {
            "op": f"`{fit.op}`",
            "by": fit.provider,
            "size": sizes(fit.dim, fit.keys, fit.dtype),
            "in": binary(fit.memory),
            "largest N": NOT if fit.batch is None else f"{fit.batch:,}",
            "takes": _bytes(fit.total),
            "ended by": fit.ended,
        }
        for fit in newest.values()
    ]
    if table:
        yield "Largest batch that was measured to fit in a stated memory, by doubling:"
        yield markdown(table, right={"in", "largest N", "takes"})


def _pictures(rows: Sequence[Measured[LossRow]], link: str) -> Iterator[str]:
    for path, op in dict.fromkeys((each.path, each.row.op) for each in rows):
        name = f"{path.stem}-{op}.png"
        profile = next(each.profile for each in rows if each.path == path)
        if name in profile.figures:
            yield f"![{op}]({quote(f'{link}/{path.with_name(name).as_posix()}')})"


def _bytes(count: int | None) -> str:
    return "" if count is None else binary(count)
