"""The decoder of masked autoencoders: every patch from the tokens of a few (arXiv:2111.06377)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.nn.positions import sincos


class PatchDecoder(nn.Module):
    """A narrow transformer; a learnt token stands for every patch that the encoder did not see.

    Positions are fixed sines and cosines; weights start by Xavier's uniform distribution.

    Args:
        dim: of the encoder's tokens.
        prefix: tokens before those of patches, such as the class token.
        grid: patches down and across.
        outputs: values of a patch.
        width: of the decoder.
        depth: its blocks.
        heads: of their attention.

    Raises:
        BenchError: the width cannot be shared among the heads, or among sines and cosines.
    """

    positions: Tensor  # [P, width]

    def __init__(
        self,
        dim: int,
        prefix: int,
        grid: tuple[int, int],
        outputs: int,
        *,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        if width % heads or width % 4:
            raise BenchError(
                f"a decoder_width of {width} is no multiple of 4 and of decoder_heads {heads}: "
                "choose another"
            )
        self.prefix = prefix
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.register_buffer("positions", sincos(grid, width))
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        blocks = (Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm(width)
        self.head = nn.Linear(width, outputs)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Every patch, `[B, P, outputs]`, row after row.

        Args:
            tokens: `[B, prefix + K, dim]` of the encoder, patches in the order that `order` has.
            order: `[B, P]` every patch's number, those K that were encoded first.
        """
        x = self.embed(tokens)
        seen = x[:, self.prefix :]
        hidden = self.mask_token.expand(len(x), order.shape[1] - seen.shape[1], -1)
        back = order.argsort(1)[:, :, None].expand(-1, -1, x.shape[-1])
        placed = torch.cat([seen, hidden.to(seen.dtype)], dim=1).gather(1, back) + self.positions
        x = self.blocks(torch.cat([x[:, : self.prefix], placed], dim=1))
        out: Tensor = self.head(self.norm(x[:, self.prefix :]))
        return out


def patchify(x: Tensor, patch: int) -> Tensor:
    """Pictures `[B, C, s, s]` as patches `[B, P, C * patch * patch]`, row after row."""
    return F.unfold(x, patch, stride=patch).transpose(1, 2)


def unpatchify(patches: Tensor, patch: int, size: int) -> Tensor:
    """The inverse of `patchify`, for pictures of side `size`."""
    return F.fold(patches.transpose(1, 2), size, patch, stride=patch)
