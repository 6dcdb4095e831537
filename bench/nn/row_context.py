"""A masked convolutional network over a grid of codes: what lies above, and nothing below."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class RowContext(nn.Module):
    """CPC's context network: residual blocks whose output at a row has seen no row below it.

    After the pseudo-code of CPC v2's appendix (arXiv:1905.09272), whose blocks widen what is seen
    by a column either way and by the row above.

    Args:
        dim: channels of the codes and of the context.
        hidden: channels within a block.
        blocks: how many.
    """

    def __init__(self, dim: int, hidden: int = 256, blocks: int = 5) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, hidden, 1),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
                nn.ZeroPad2d((0, 0, 1, 0)),  # above only
                nn.Conv2d(hidden, hidden, (2, 1)),
                nn.ReLU(),
                nn.Conv2d(hidden, dim, 1),
            )
            for _ in range(blocks)
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Codes `[B, D, rows, columns]` to contexts of the same shape."""
        for block in self.blocks:
            codes = codes + block(codes)
        return F.relu(codes)
