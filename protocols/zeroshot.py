"""Zero-shot classification: the class whose prompts a picture's embedding is nearest to."""

from __future__ import annotations

import re
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import normalize

from bench.api import Encoder, EvalData, ImageTextEncoder, Metric, Protocol, Scores
from bench.data.scenes import palette
from bench.data.text import tokenize
from bench.errors import BenchError
from bench.eval.scoring import class_labels, classification_metrics, require_finite

EMBEDDING = "image_embedding"  # the name that embeddings of pictures are cached under
PROMPTS = 256  # embedded at once

# CLIP's plain template, and the seven that its authors found to do as well as their 80.
TEMPLATES = (
    "a photo of a {}.",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
# Where pictures are no photographs, templates speak as their captions do: CLIP's authors, too,
# wrote a set for each kind of data. Captions of `scenes` say which colour a thing has.
OWN_TEMPLATES = {
    "scenes": tuple(f"{'an' if c[0] in 'aeiou' else 'a'} {c} {{}}." for c in palette.NAMES)
}


class ZeroShot(Protocol):
    """Top-1 accuracy of the class with the highest cosine between picture and prompts.

    A class's embedding is the mean of the unit embeddings of its prompts, one per template, at
    length 1 again. Nothing is trained and nothing is chosen; `ece` is of the softmax at the learnt
    temperature. Radford et al., arXiv:2103.00020, section 3.1.
    """

    metric = Metric("top1")
    takes = ImageTextEncoder

    class Config(Protocol.Config):
        """The prompts, each with a `{}` where the class's name goes."""

        templates: tuple[str, ...] | None = Field(None, min_length=1)  # None: fitting the data

        @field_validator("templates")
        @classmethod
        def _with_a_place(cls, templates: tuple[str, ...] | None) -> tuple[str, ...] | None:
            for template in templates or ():
                if "{}" not in template:
                    raise ValueError(f"{template!r} has no {{}} for the name of a class")
            return templates

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused, as nothing is random.

        Raises:
            BenchError: the encoder has no text side, labels are missing, or embeddings are not
                finite.
        """
        if not isinstance(encoder, ImageTextEncoder):
            raise BenchError(
                "protocol zeroshot needs a method that learns from text such as clip; "
                f"{type(encoder).__name__} has no text side"
            )
        test = data.read_test()
        found = test.features(_Embedded(encoder), (EMBEDDING,))
        images = normalize(require_finite(found)[EMBEDDING])
        labels = class_labels(test)
        names = [name.replace("_", " ") for name in data.info.classes]
        templates = cfg.templates or templates_for(data.info.name)
        classes = class_embeddings(encoder, names, templates, images.device)
        cosine = images @ classes.T
        return Scores(
            metrics=classification_metrics((encoder.scale * cosine).softmax(1), labels),
            selected={"templates": list(templates), "scale": encoder.scale},
            predictions=cosine.argmax(1),
            labels=labels,
        )


def templates_for(data: str) -> tuple[str, ...]:
    """The templates for a data set's name: those of its kind, whatever its size and limit.

    A change of any of them is a new version of the protocol.
    """
    kind = re.match(r"[a-z]*", data)
    return OWN_TEMPLATES.get(kind[0] if kind else "", TEMPLATES)


@torch.no_grad()
def class_embeddings(
    encoder: ImageTextEncoder, names: list[str], templates: tuple[str, ...], device: torch.device
) -> Tensor:
    """The unit embedding of each class, `[C, D]`, over all templates.

    Args:
        encoder: embeds the prompts.
        names: of the C classes.
        templates: prompts with a `{}` where the name goes.
        device: where the encoder is.
    """
    total = torch.zeros((), device=device)
    for template in templates:
        tokens = tokenize([template.replace("{}", name) for name in names])
        rows = [encoder.embed_text(some.to(device)) for some in tokens.split(PROMPTS)]
        total = total + normalize(torch.cat(rows).float())
    return normalize(total)


class _Embedded(Encoder):
    """The embeddings of pictures as a layer of its own, so that the cache tells it from "output".

    Args:
        encoder: whose embeddings they are.
    """

    layers = (EMBEDDING,)

    def __init__(self, encoder: ImageTextEncoder) -> None:
        super().__init__()
        self.encoder, self.dim = encoder, encoder.dim

    def forward(self, x: Tensor) -> Tensor:
        """The representation, as without the text side."""
        out: Tensor = self.encoder(x)
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The embedding as a map of one place, `[B, D, 1, 1]`."""
        return {EMBEDDING: self.encoder.embed_image(x)[:, :, None, None]}
