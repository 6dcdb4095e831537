"""`bench show RUN --picture`: what a trained method makes of a few pictures, as one PNG."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench import files, pretraining, rng
from bench.api import Method, Panel, Step
from bench.data import catalog
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.eval.figures import BAD, GOOD, PLAIN
from bench.loader import Loader
from bench.record import Record
from bench.resolve import Resolved, data_options, resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHOICE = 512  # pictures that a method may choose its tiles from
TILES = 8  # in a row, at most
TILE, LABEL = 0.95, 1.5  # inches: a tile's side, and the width of a panel's title
TITLE, CAPTION, LINE = 0.45, 0.2, 0.13  # inches: heights, of a further line of captions too
DPI = 160


def of_record(record: Record) -> list[Panel]:
    """The panels of the method that `record` pretrained, from its kept weights.

    Raises:
        BenchError: the weights or the data are not on this machine, or nothing was trained.
    """
    if record.pretraining.pictures == 0:
        raise BenchError(
            f"{record.method.name} learns nothing from pictures: there is none to show"
        )
    folder = files.cache_root() / "runs" / record.pretraining.id
    if not (folder / pretraining.DONE).exists():
        raise BenchError(
            f"the weights of this run are not in {folder}; run it again with bench run to have them"
        )
    resolved = _resolved(json.loads((folder / pretraining.CONFIG).read_text()))
    data = catalog.load(resolved.data, data_options(resolved.data_options))
    split = data.train if resolved.sees_labels else data.full
    if split.digest != record.pretraining.data_digest:
        raise BenchError(f"{resolved.data} is no longer what this run was trained on")
    method = pretraining.build(resolved, replace(data.info, n_train=len(split)))
    pretraining.restore(method, folder, resolved.engine)
    device = resolved.engine.fabric().device
    loader = Loader(method, split, resolved.seed, device)
    loader.batch_size = min(CHOICE, len(split))
    batch = next(loader.batches(0, 0, 1))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(resolved.seed, "picture"))
        panels = list(method.eval().picture(batch, _last_step(method, resolved, device)))
    if not panels:
        raise BenchError(f"{record.method.name} has no picture to show")
    return panels


def title_of(record: Record) -> str:
    """What a picture shows, in a line."""
    changed = "".join(f", {key}={value}" for key, value in record.method.changed.items())
    epochs = record.pretraining.epochs
    length = f", {epochs} epoch{'s' * (epochs != 1)}" if epochs else ""
    return f"{record.method.name}{changed} · {record.data.name}{length}, seed {record.seed}"


def png(out: Path) -> Path:
    """`out`, if a picture can be written there.

    Raises:
        BenchError: it is not named as a PNG, or its folder does not exist.
    """
    if out.suffix.lower() != ".png" or not out.absolute().parent.is_dir():
        raise BenchError(f"{out}: name a .png file in a folder that exists")
    return out


def draw(panels: list[Panel], title: str, out: Path) -> None:
    """Write the panels, one row each under `title`, to the PNG file `out`."""
    figure = _figure(panels, title)

    def save(file: IO[bytes]) -> None:
        # Without the library's version in it, the same panels give the same bytes.
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})

    files.write_atomic(out, save)


def _figure(panels: list[Panel], title: str) -> Figure:
    from matplotlib.figure import Figure

    columns = max(min(len(panel.tiles), TILES) for panel in panels)
    rows = [_shown(panel) for panel in panels]
    heights = [TILE + 0.06 + _captions_height(panel) for panel in rows]
    width, height = LABEL + columns * TILE + 0.1, TITLE + sum(heights)
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(
        0.1 / width, 1 - 0.5 * TITLE / height, title, fontsize=11, weight="bold", va="center"
    )
    top = height - TITLE
    for panel, tall in zip(rows, heights, strict=True):
        middle = (top - TILE / 2) / height
        figure.text(0.1 / width, middle, fill(panel.title, 20), fontsize=8, va="center")
        for column, tile in enumerate(panel.tiles):
            left, side = LABEL + column * TILE, TILE - 0.06
            box = (left / width, (top - side) / height, side / width, side / height)
            axes = figure.add_axes(box)
            axes.imshow(tile.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_axis_off()
            if panel.captions:
                color = (GOOD if panel.good[column] else BAD) if panel.good else PLAIN
                below = (left + side / 2) / width, (top - side - 0.03) / height
                text = panel.captions[column]
                figure.text(*below, text, fontsize=6.5, color=color, ha="center", va="top")
        top -= tall
    return figure


def _captions_height(panel: Panel) -> float:
    lines = max((caption.count("\n") + 1 for caption in panel.captions), default=0)
    return CAPTION + LINE * (lines - 1) if lines else 0.0


def _shown(panel: Panel) -> Panel:
    """The first tiles of a panel, as floats in [0, 1] on the CPU, grey where not finite."""
    tiles: Tensor = panel.tiles[:TILES].detach().float().cpu().nan_to_num(0.5).clamp(0, 1)
    return Panel(panel.title, tiles, panel.captions[:TILES], panel.good[:TILES])


def _resolved(tree: dict[str, Any]) -> Resolved:
    """The configuration that a pretraining wrote down, on this machine's device."""
    engine = {"device": "auto", "precision": "32", "compile": False}
    overrides: dict[str, dict[str, Any]] = {
        "method": tree["method"]["config"],
        "protocol": tree["protocol"]["config"],
        "backbone": tree["backbone"]["options"],
        "engine": EngineConfig(**engine).model_dump(),
        "data": tree.get("data_options", {}),
    }
    return resolve(
        method=tree["method"]["name"],
        protocol=tree["protocol"]["name"],
        data=tree["data"],
        size=0,
        backbone=tree["backbone"]["name"],
        seed=tree["seed"],
        recipe="paper",
        overrides=overrides,
    )


def _last_step(method: Method, resolved: Resolved, device: torch.device) -> Step:
    epochs = resolved.method_cfg.epochs
    draws = rng.generator(resolved.seed, "picture", device=device)
    total = max(epochs, 1)  # one step each: where in training matters, not how many
    return Step(method.phases[-1], total - 1, total, total - 1, total, draws)
