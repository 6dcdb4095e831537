"""Any timm model behind the backbone's face; ResNets get a small stem for small pictures."""

from __future__ import annotations

from typing import Any, Literal

import torch
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.api import Backbone
from bench.backbones.timm_create import TIMM_ERRORS, create, first_line
from bench.errors import BenchError

SMALL_PICTURE = 64  # pixels; up to here a ResNet's stem would leave too little to see
TAPPED_BLOCKS = 4


class TimmBackbone(Backbone):
    """A timm model: its pooled features, and its stages or blocks as maps.

    `layers` are timm's own feature taps, dots as underscores ("act1", "layer1", "stages_0"). A
    transformer of many blocks has four evenly spaced ones instead ("block3", the third), through
    the final norm as DINO evaluates them (arXiv 2104.14294). `forward` is timm's own pooling: the
    average of the last map for most convolutional networks, the class token for most transformers.

    `notes` says, a line each, where the network is not what its name promises. A vision
    transformer also has `grid`, its patches down and across, and `prefix`, its tokens before them.
    """

    def __init__(
        self,
        name: str,
        size: int,
        pretrained: bool = False,
        stem: Literal["auto", "small", "own"] = "auto",
        **options: Any,
    ) -> None:
        """Build timm's `name`; `stem` is for ResNets, other options go to `timm.create_model`.

        "auto" swaps a ResNet's stem for SimCLR's CIFAR stem, one 3x3 convolution of stride 1 and
        no max-pool (arXiv 2002.05709, B.9), at 64 px and below unless weights are pretrained.

        Raises:
            BenchError: no such model or option, or it cannot take pictures of this size.
        """
        super().__init__()
        self.name = name
        self.notes: tuple[str, ...] = ()
        self.model: Any = create(name, size, pretrained, options)
        if isinstance(self.model, ResNet):
            self._fit_stem(stem, size, pretrained)
        elif stem != "auto":
            raise BenchError(f"{name} is not a ResNet: it has no option stem={stem!r}")
        if isinstance(self.model, VisionTransformer):
            self._fit_patches(size)
        self._tapped = self._blocks()
        self.dim, self.layers = self._probe(size)

    def forward(self, x: Tensor) -> Tensor:
        """The model's own pooled features, `[B, dim]`."""
        out: Tensor = self.model(x)
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The tapped stages or blocks, `[B, C, h, w]` each; empty where timm has no taps."""
        return dict(zip(self.layers, self._intermediates(x), strict=True))

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Normed tokens `[B, T, D]`: class (and register) tokens first, then patches.

        Only the patches `keep` `[B, K]` (0 is top left, row after row) are encoded, in that order.
        They are dropped after the position embedding is added (MAE, arXiv 2111.06377). Where
        `mask` `[B, P]` is true, `mask_token` `[D]` takes the embedding's place before that (iBOT,
        arXiv 2111.07832).

        Raises:
            NotImplementedError: the model is not timm's plain vision transformer.
        """
        vit = self.model
        if not isinstance(vit, VisionTransformer):
            raise NotImplementedError(f"{self.name} has no tokens; use a vision transformer")
        if keep is None and mask is None:
            every: Tensor = vit.forward_features(x)
            return every
        embedded = vit.patch_embed(x)  # [B, P, D], or [B, h, w, D] where sizes may differ
        if mask is not None:
            assert mask_token is not None
            where = mask.view(*embedded.shape[:-1], 1)
            embedded = torch.where(where, mask_token.to(embedded.dtype), embedded)
        embedded = vit._pos_embed(embedded)
        if keep is not None:
            prefix, patches = embedded[:, : self.prefix], embedded[:, self.prefix :]
            kept = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
            embedded = torch.cat([prefix, kept], dim=1)
        out: Tensor = vit.norm(vit.blocks(vit.norm_pre(embedded)))
        return out

    def _fit_stem(self, stem: str, size: int, pretrained: bool) -> None:
        if stem not in ("auto", "small", "own"):
            raise BenchError(f'{self.name} has no stem {stem!r}; use "auto", "small" or "own"')
        small = size <= SMALL_PICTURE and not pretrained if stem == "auto" else stem == "small"
        if small:
            conv = nn.Conv2d(3, self.model.bn1.num_features, 3, 1, 1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            self.model.conv1, self.model.maxpool = conv, nn.Identity()
            self.notes += ("stem: one 3x3 convolution of stride 1, no max-pool",)

    def _fit_patches(self, size: int) -> None:
        patch = self.model.patch_embed.patch_size[0]
        if size % patch:
            raise BenchError(
                f"{self.name} cuts patches of {patch} px, which do not tile a side of {size} px; "
                "choose another size, or the option patch_size"
            )
        self.grid: tuple[int, int] = self.model.patch_embed.grid_size
        self.prefix: int = self.model.num_prefix_tokens
        self.notes += (f"patches: {self.grid[0]} x {self.grid[1]}, of {patch} px",)

    def _blocks(self) -> list[int] | None:
        """The blocks to tap of a network that keeps one width and grid; None: it has stages."""
        taps = self._timm_taps()
        if len({(tap["num_chs"], tap["reduction"]) for tap in taps}) != 1:
            return None
        count = min(TAPPED_BLOCKS, len(taps))
        return [(i + 1) * len(taps) // count - 1 for i in range(count)]

    def _timm_taps(self) -> list[dict[str, Any]]:
        return list(getattr(self.model, "feature_info", None) or ())

    def _intermediates(self, x: Tensor) -> list[Tensor]:
        if not hasattr(self.model, "forward_intermediates"):
            return []
        out: list[Tensor] = self.model.forward_intermediates(
            x, indices=self._tapped, norm=self._tapped is not None, intermediates_only=True
        )
        return out

    @torch.no_grad()
    def _probe(self, size: int) -> tuple[int, tuple[str, ...]]:
        """Run once on black, so that a size or option that cannot work is told here and now."""
        self.model.eval()
        blank = torch.zeros(1, 3, size, size)
        try:
            pooled, count = self.model(blank), len(self._intermediates(blank))
        except (IndexError, *TIMM_ERRORS) as error:
            why = first_line(error)
            raise BenchError(f"{self.name} cannot take pictures of {size} px: {why}") from error
        if pooled.ndim != 2:
            raise BenchError(f"{self.name} gives {list(pooled.shape)}, not [B, dim]: check options")
        self.model.train()
        if self._tapped is not None:
            return pooled.shape[1], tuple(f"block{i + 1}" for i in self._tapped)
        modules = [tap["module"] for tap in self._timm_taps()]
        if len(modules) != count:
            modules = [f"stage{i + 1}" for i in range(count)]
        return pooled.shape[1], tuple(module.replace(".", "_") for module in modules)
