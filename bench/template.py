"""The file that `bench new` writes: a small contrastive method to change into one's own."""

from __future__ import annotations

import keyword
from pathlib import Path

from bench.errors import BenchError
from bench.files import write_text

TEMPLATE = '''"""NAME: two views of a picture agree, views of different pictures do not (cite the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Step, View
from bench.data.ops import ColorJitter, HorizontalFlip, Normalize, RandomResizedCrop


class CLASS(Method):
    """Say here what the method does and what a reader must know before changing it."""

    recipes = {"small": {"epochs": 5, "batch_size": 128}}

    class Config(MethodConfig):
        """The paper's settings, with the source beside each."""

        epochs: int = 100
        batch_size: int = 512
        lr: float = 0.06  # per 256 pictures
        temperature: float = 0.5
        projector_dim: int = 64

    def build(self) -> None:
        """The projector."""
        self.projector = nn.Linear(self.backbone.dim, self.cfg.projector_dim)

    def views(self) -> Sequence[View]:
        """Two random views of each picture."""
        ops = (
            RandomResizedCrop(scale=(0.2, 1.0)),
            HorizontalFlip(p=0.5),
            ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
            Normalize(mean=self.data.mean, std=self.data.std),
        )
        return (View("augmented", ops, count=2),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Each view must find the other view of its picture among all pictures of the batch."""
        one, two = (F.normalize(self.projector(self.backbone(x))) for x in batch.views["augmented"])
        logits = one @ two.T / self.cfg.temperature
        target = torch.arange(len(logits), device=logits.device)
        step.log("match_top1", 100 * (logits.argmax(1) == target).float().mean())
        loss: Tensor = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss

    def optim(self, phase: str) -> OptimSpec:
        """SGD with a cosine schedule."""
        return OptimSpec(lr=self.cfg.lr, base_batch=256, weight_decay=5e-4)
'''


def write(name: str, folder: Path) -> Path:
    """Write the template for method `name` into `folder`; returns the file's path.

    Raises:
        BenchError: `name` is no Python identifier, or the file is there already.
    """
    name = name.replace("-", "_")
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise BenchError(f"'{name}' cannot be a method's name: use letters, digits and _")
    path = folder / f"{name}.py"
    if path.exists():
        raise BenchError(f"{path} is there already; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    write_text(path, TEMPLATE.replace("NAME", title, 1).replace("CLASS", title, 1))
    return path
