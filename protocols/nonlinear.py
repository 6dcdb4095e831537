"""Non-linear probe: RotNet's perceptron or convolutional head on one layer, or on each."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from bench.api import Encoder, EvalData, Metric, OptimSpec, Protocol, Scores
from bench.errors import BenchError
from bench.eval.grid_pool import grid_side
from bench.eval.layer_heads import Schedule, Shape, probe_layers
from bench.nn.mlp import mlp

WIDTH = 192  # channels of NIN's blocks


class Nonlinear(Protocol):
    """Top-1 accuracy of a small network on frozen maps; the layer that is best on val counts.

    Gidaris et al., arXiv:1803.07728, Tables 1 and 3. "mlp": the maps are flattened, then come two
    hidden layers with batch norm and ReLU, and a linear one. "conv": a block of NIN (3x3, 1x1 and
    1x1 convolutions with batch norm and ReLU), global average pooling and a linear layer. SGD on
    random crops and flips; the learning rate falls by 5 after 35, 70 and 85 % of training: the
    schedule of "conv" in the authors' code, for both (theirs for "mlp" drops at 20, 40 and 45 %, of
    100 epochs, which leaves a short training too little). Every
    layer gets a head (or the one that `layer` names), val chooses the layer, and the heads are
    trained again on train + val.
    """

    metric = Metric("top1")
    toy = {"epochs": 1, "min_steps": 60, "batch_size": 32, "augment": False}

    class Config(Protocol.Config):
        """The constants: gidariss/FeatureLearningRotNet's, where no other source is named."""

        head: Literal["mlp", "conv"] = "mlp"
        layer: str = "auto"  # or a layer's name, or "output"
        hidden: PositiveInt | None = None  # None: min(20 * classes, 2048)
        # Larger maps are averaged to a grid of about so many: 192 x 8 x 8, NIN's conv2, is what the
        # paper flattens, and the first layers at 224 px would need 10^8 weights.
        numbers: PositiveInt = 12_288
        epochs: PositiveInt = 8  # 100 there, of 50,000 pictures; here a minute on a CPU core
        min_steps: PositiveInt = 500  # small sets
        batch_size: int = Field(128, ge=2)  # batch norm needs two
        lr: PositiveFloat = 0.1
        weight_decay: NonNegativeFloat = 5e-4
        augment: bool = True  # crop and mirror

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: the encoder lacks the layer, labels are missing, or features are not finite.
        """
        # A 3x3 convolution needs space, which the output does not have.
        known = encoder.layers if cfg.head == "conv" else (*encoder.layers, "output")
        if not known:
            raise BenchError("the encoder has no maps for a conv head; set protocol.head=mlp")
        if cfg.layer not in ("auto", *known):
            raise BenchError(
                f"there is no layer {cfg.layer!r} for a head of kind {cfg.head}; "
                f"set protocol.layer to {' or '.join(('auto', *known))}"
            )
        classes = data.info.num_classes
        hidden = cfg.hidden or min(20 * classes, 2048)

        def head(shape: Shape, rng: torch.Generator) -> nn.Module:
            if cfg.head == "conv":
                return initialized(conv_head(shape[0], classes), rng)
            return initialized(mlp_head(shape, hidden, classes, cfg.numbers), rng)

        optim = OptimSpec(
            lr=cfg.lr,
            weight_decay=cfg.weight_decay,
            nesterov=True,
            schedule="step",
            milestones=(0.35, 0.70, 0.85),
            gammas=(0.2, 0.2, 0.2),
        )
        schedule = Schedule(optim, cfg.epochs, cfg.min_steps, cfg.batch_size, cfg.augment)
        layers = known if cfg.layer == "auto" else (cfg.layer,)
        return probe_layers(encoder, data, layers, head, schedule, seed)


def mlp_head(shape: Shape, hidden: int, classes: int, numbers: int) -> nn.Sequential:
    """Maps `[B, C, h, w]` -> flat -> hidden -> hidden -> logits `[B, classes]`."""
    channels, height, width = shape
    side = grid_side(channels, min(height, width), numbers)
    pool = nn.AdaptiveAvgPool2d(side)  # leaves a map of that size as it is
    return nn.Sequential(pool, nn.Flatten(), *mlp(channels * side**2, hidden, hidden, classes))


def conv_head(channels: int, classes: int) -> nn.Sequential:
    """Maps `[B, C, h, w]` -> a block of NIN -> mean over space -> logits `[B, classes]`."""
    layers: list[nn.Module] = []
    for inputs, size in ((channels, 3), (WIDTH, 1), (WIDTH, 1)):
        layers.append(nn.Conv2d(inputs, WIDTH, size, padding=size // 2, bias=False))
        layers += [nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)]
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *pool, nn.Linear(WIDTH, classes))


def initialized(head: nn.Module, rng: torch.Generator) -> nn.Module:
    """`head` with weights drawn from N(0, 2 / fan_out), biases 0, as in the paper's code."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return head
