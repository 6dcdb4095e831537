"""Calls that render views of a pile of pictures: ours, torchvision's, kornia's and lightly's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from bench.api import View
from bench.data.views import render
from bench.profiling.view_cases import Case
from bench.rng import generator

BATCH = 256  # pictures at a time
BATCHES = 4  # of a loader's process, at least: none idles for long while another still works
Maker = Callable[[], object]  # renders all views of all pictures
LIBRARIES = ("bench", "torchvision", "kornia", "lightly")


def pictures(count: int, size: int) -> Tensor:
    """Smooth pictures, like photographs and unlike noise in how often their colours clip.

    Returns:
        uint8 `[count, 3, size, size]`.
    """
    coarse = torch.rand(count, 3, 6, 6, generator=generator("pictures", size))
    smooth = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte()


def maker(library: str, case: Case, pixels: Tensor) -> Maker | str:
    """What renders `case` by `library` of `pixels` `[N, 3, s, s]`; or why nothing does."""
    if library != "bench" and find_spec(library) is None:
        return "not installed"
    if library == "bench":
        return _ours(case, pixels)
    if not getattr(case, library):
        return f"{library} has no such operation"
    return {"torchvision": _torchvision, "kornia": _kornia, "lightly": _lightly}[library](
        case, pixels
    )


def one_by_one(library: str, case: Case) -> bool:
    """Whether a library goes picture by picture: its batches share their draws."""
    return library == "lightly" or (library == "torchvision" and case.random)


def _ours(case: Case, pixels: Tensor) -> Maker:
    view = View(case.name, case.ours, case.size, case.copies)
    rng = generator("profile", case.name, device=pixels.device)
    return lambda: [render(view, batch, rng) for batch in pixels.split(BATCH)]


def _torchvision(case: Case, pixels: Tensor) -> Maker:
    transform = v2.Compose(list(case.torchvision))
    if case.random:
        return _in_processes(_Copies(pixels.cpu(), transform, case.copies), pixels.device)
    return lambda: [transform(b) for b in pixels.split(BATCH) for _ in range(case.copies)]


def _kornia(case: Case, pixels: Tensor) -> Maker:
    transform = nn.Sequential(*case.kornia).to(pixels.device)
    return lambda: [transform(b / 255) for b in pixels.split(BATCH) for _ in range(case.copies)]


def _lightly(case: Case, pixels: Tensor) -> Maker:
    from lightly.transforms.simclr_transform import SimCLRViewTransform

    opened = [Image.fromarray(np.asarray(p.permute(1, 2, 0))) for p in pixels.cpu()]
    transform = SimCLRViewTransform(**case.lightly)
    return _in_processes(_Copies(opened, transform, case.copies), pixels.device)


class _Copies(Dataset[list[Tensor]]):
    """Views of each picture, each made on its own by `transform`."""

    def __init__(
        self, pictures: Sequence[Any] | Tensor, transform: Callable[..., Tensor], copies: int
    ) -> None:
        self.pictures, self.transform, self.copies = pictures, transform, copies

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> list[Tensor]:
        picture = self.pictures[index]
        return [self.transform(picture) for _ in range(self.copies)]


def _in_processes(copies: _Copies, device: torch.device) -> Maker:
    """As training loads them: in as many processes as torch has threads, each with its share."""
    workers = torch.get_num_threads()
    batch = max(1, min(BATCH, len(copies) // (BATCHES * workers)))
    loader = DataLoader(copies, batch, num_workers=workers, persistent_workers=True)
    return lambda: [[view.to(device) for view in views] for views in loader]
