"""CLIP's text transformer over captions of any length, from open_clip's parts."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

from bench.data.text import CONTEXT, VOCABULARY
from bench.errors import BenchError, unknown


class TextTower(nn.Module):
    """A causal transformer over tokens; a projection of where the end token stands is the text's.

    It is open_clip's `TextTransformer`, but that captions need not be padded to 77 tokens: what
    follows the end token is not seen from there, so that padding only costs time.

    Args:
        width: of the tokens.
        heads: of attention, which divide `width`.
        layers: transformer blocks.
        output: the embedding's width.
        quick_gelu: whether the activation is x sigmoid(1.702 x), as in OpenAI's own models.
    """

    def __init__(
        self, width: int, heads: int, layers: int, output: int, quick_gelu: bool = False
    ) -> None:
        super().__init__()
        self.transformer = TextTransformer(
            context_length=CONTEXT,
            vocab_size=VOCABULARY,
            width=width,
            heads=heads,
            layers=layers,
            proj_type="none",
            act_layer=QuickGELU if quick_gelu else nn.GELU,
        )
        self.projector = nn.Linear(width, output, bias=False)
        nn.init.normal_(self.projector.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings `[N, output]` of tokens `[N, L]` int64, L at most 77."""
        net, length = self.transformer, tokens.shape[1]
        x = net.token_embedding(tokens) + net.positional_embedding[:length]
        x = net.transformer(x, attn_mask=net.attn_mask[:length, :length])
        end = tokens.argmax(1)  # the end token has the highest number
        x = net.ln_final(x[torch.arange(len(x), device=x.device), end])
        embeddings: Tensor = self.projector(x)
        return embeddings


def named_text_tower(name: str, output: int) -> TextTower:
    """The untrained text tower of an open_clip model, such as ViT-B-32.

    Args:
        name: as in `open_clip.list_models()`.
        output: the embedding's width.

    Raises:
        BenchError: there is no such model (the nearest are named), or its text tower is not
            CLIP's transformer over CLIP's tokens.
    """
    if name not in open_clip.list_models():
        raise unknown("text model", name, filter(_is_plain, open_clip.list_models()))
    if not _is_plain(name):
        raise BenchError(
            f"text_model {name}: its text tower does not read CLIP's tokens with CLIP's "
            "transformer; choose one that does, such as ViT-B-32 or RN50"
        )
    config = open_clip.get_model_config(name)
    text = config["text_cfg"]
    quick = bool(config.get("quick_gelu"))
    return TextTower(text["width"], text["heads"], text["layers"], output, quick)


def _is_plain(name: str) -> bool:
    text: dict[str, Any] = open_clip.get_model_config(name)["text_cfg"]
    sizes = (text.get("context_length"), text.get("vocab_size"))
    shape = {"context_length", "vocab_size", "width", "heads", "layers"}
    return set(text) == shape and sizes == (CONTEXT, VOCABULARY)
