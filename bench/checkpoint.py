"""Checkpoints that survive a kill at any moment, a full disk and a damaged file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from bench.errors import BenchError
from bench.files import write_atomic
from bench.progress import Reporter

FRESH, LAST, PREVIOUS = "fresh.pt", "last.pt", "previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the last checkpoint; the one before it is kept as the previous.

    Raises:
        BenchError: the disk is full; both earlier checkpoints are untouched then.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    fresh = folder / FRESH
    write_atomic(fresh, lambda file: file.write(buffer.getbuffer()))
    last = folder / LAST
    if last.exists():
        last.replace(folder / PREVIOUS)
    fresh.replace(last)


def load(folder: Path, device: torch.device, reporter: Reporter) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None where none was written.

    A damaged one is named, kept aside as `*.damaged`, and the one before it is taken.

    Raises:
        BenchError: checkpoints are there but none can be read.
    """
    damaged: list[Path] = []
    for name in (FRESH, LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            damaged.append(aside)
            reporter.line(
                f"checkpoint {path} is damaged ({type(error).__name__}); kept as {aside.name}"
            )
            continue
        if damaged:
            reporter.line(f"continuing from the checkpoint before it, {path.name}")
        return state
    if damaged:
        raise BenchError(
            f"no readable checkpoint in {folder}: {damaged[0].name} is truncated or damaged. "
            "Put back a good copy as last.pt, or run again to train from the start"
        )
    return None


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished run; its final weights are stored apart."""
    for name in (FRESH, LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)
