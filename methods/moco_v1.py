"""MoCo v1: find a picture's key among those of a long queue (He 2020, arXiv:1911.05722).

`match_top1` is the share of queries, in %, nearest to their own key; chance is 100 / (queue + 1).
"""

from __future__ import annotations

from bench.nn.moco import MoCo, MoCoConfig


class MoCoV1(MoCo):
    """A linear head, and a learning rate that drops twice."""

    deviations = (
        "the queue starts with random unit vectors, as in the official code; the paper says "
        "nothing of it",
        "pictures turn gray after the jitter; the official code does it before",
        "GPUs are groups of one process: their batch norms share one running average",
    )
    recipes = {
        # 10,000 pictures and the small backbone: about a minute on one CPU core.
        "small": {
            "epochs": 10,
            "batch_size": 128,
            "groups": 4,
            "queue": 2048,
            "teacher_momentum": 0.99,
            "optimizer": "adam",
            "lr": 4e-3,
            "schedule": "cosine",
            "warmup_epochs": 1,
        },
    }

    class Config(MoCoConfig):
        """InstDisc's augmentation without blur; the rest as the base has it."""

        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.4)
        jitter_p: float = 1.0
        blur: float = 0.0
