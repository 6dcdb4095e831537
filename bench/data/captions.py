"""Captions in text files: NAME.txt beside the picture NAME.jpg."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.errors import BenchError


def caption_file(picture: Path) -> Path:
    """Where the caption of `picture` is: NAME.txt of NAME.jpg."""
    return picture.with_suffix(".txt")


def read_captions(root: Path, pictures: Sequence[str], workers: int) -> tuple[str, ...]:
    """The captions of `pictures`, paths relative to `root`; each as one line.

    Raises:
        BenchError: a caption is missing, empty or not UTF-8.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return tuple(pool.map(lambda path: _read(caption_file(root / path)), pictures))


def _read(path: Path) -> str:
    try:
        words = path.read_text(encoding="utf-8-sig").split()
    except OSError as error:
        raise BenchError(f"the caption {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"the caption {path} is not UTF-8 text; save it as such") from error
    if not words:
        raise BenchError(f"the caption {path} is empty; write what the picture shows")
    return " ".join(words)
