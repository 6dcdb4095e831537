"""MoCo v2: MoCo with SimCLR's head and augmentation (Chen 2020, arXiv:2003.04297).

`match_top1` is the share of queries, in %, nearest to their own key; chance is 100 / (queue + 1).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.nn.moco import MoCo, MoCoConfig


class MoCoV2(MoCo):
    """A head of two layers, blur, a higher temperature and a cosine schedule."""

    deviations = ("GPUs are groups of one process: their batch norms share one running average",)
    recipes = {
        # 10,000 pictures and the small backbone: about a minute on one CPU core.
        "small": {
            "epochs": 10,
            "batch_size": 64,
            "groups": 2,
            "queue": 1024,
            "hidden": 256,
            "temperature": 0.1,
            "crop": (0.5, 1.0),
            "jitter": (0.8, 0.8, 0.8, 0.2),
            "blur": 0.0,
            "teacher_momentum": 0.98,
            "optimizer": "adam",
            "lr": 4e-3,
            "weight_decay": 1e-6,
            "warmup_epochs": 1,
        },
    }

    class Config(MoCoConfig):
        """The paper's 200 epochs (section 3; its best: 800); what it kept is as the base has it."""

        hidden: int | None = Field(2048, ge=1)  # ResNet-50's width
        temperature: float = Field(0.2, gt=0)
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
        schedule: Literal["step", "cosine"] = "cosine"
