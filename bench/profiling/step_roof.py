"""What a training step can do at most on a device: its products are of matrices or convolutions.

On a CPU the two come from different libraries, and for float32 on some CPUs convolutions reach
more than twice the FLOP/s of matrix products, so that these alone would be no roof.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from bench import rng
from bench.profiling import roof
from bench.profiling.timing import alternate
from bench.record.profile import RoofRecord

CONVOLUTION = " convolution"  # after the precision's name in a record
BATCH, CHANNELS, SIDE = 64, 128, 16


def measure(device: torch.device) -> RoofRecord:
    """The roofs of `device`, on a CPU with those of 3 x 3 convolutions beside them."""
    found = roof.measure(device)
    if device.type != "cpu":  # one library does both there, and matrix products faster
        return found
    draw = rng.generator("roof", "convolution")
    shape = (BATCH, CHANNELS, SIDE, SIDE)
    flops = dict(found.flops)
    for kind in ("float32", "bfloat16"):
        dtype = getattr(torch, kind)
        x = torch.randn(shape, generator=draw).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(CHANNELS, CHANNELS, 3, 3, generator=draw).to(
            dtype, memory_format=torch.channels_last
        )
        call = partial(F.conv2d, x, weight, padding=1)
        times = alternate({kind: call}, device, seconds=0.5)
        work = 2 * 9 * CHANNELS**2 * BATCH * SIDE**2
        flops[kind + CONVOLUTION] = work / (min(times[kind].samples) / 1e3)
    return found.model_copy(update={"flops": flops})


def peak(found: RoofRecord, precision: str) -> float:
    """FLOP/s at most of a step in this `precision` of the engine.

    cuDNN's convolutions of float32 are tf32 products by default, so on a GPU theirs is its roof.
    """
    kind = "bfloat16" if precision == "bf16" else "float32"
    if kind == "float32" and "tf32" in found.flops and torch.backends.cudnn.allow_tf32:
        kind = "tf32"
    return max(found.flops[kind], found.flops.get(kind + CONVOLUTION, 0.0))
