"""CKA: how alike layers, labels and other encoders are, whatever the rotation of the features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import PositiveInt
from torch.nn.functional import one_hot

from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.eval.figures import HeatMap, heat_maps
from bench.eval.sampling import compared, of_same_pictures
from bench.eval.similarity import cosine, gram, linear_cka, u_centred


class Cka(Protocol):
    """Linear CKA of the encoder's output with the one-hot classes of test pictures.

    Kornblith et al., arXiv:1905.00414, over a fixed class-balanced sample, with the unbiased
    estimate of HSIC (arXiv:2010.15327), since there are fewer pictures than dimensions:
    `label_cka_biased` is the paper's own estimate. 1 means that features are the classes up to
    rotation and scale, 0 that they are unrelated; the estimate may fall just below. The figure
    shows it between every two layers.
    """

    metric = Metric("label_cka", unit="CKA")

    toy = {"pictures": 40}

    class Config(Protocol.Config):
        """The constants."""

        pictures: PositiveInt = 240  # 20 of each class of scenes; 28,680 pairs are kept
        max_dim: PositiveInt = 512  # numbers per layer after pooling, as in linear@1

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; `seed` is unused: all encoders see the same pictures.

        Raises:
            BenchError: labels are missing or of one class only, too few pictures, or features are
                not finite.
        """
        layers = (*encoder.layers, "output")
        sample = compared(data.read_test(), encoder, layers, cfg.pictures, cfg.max_dim)
        classes = one_hot(sample.labels, data.info.num_classes)
        centred = {layer: u_centred(gram(x)) for layer, x in sample.features.items()}
        truth = u_centred(gram(classes))
        per_layer = {
            layer: {
                "label_cka": cosine(values, truth),
                "label_cka_biased": linear_cka(sample.features[layer], classes, unbiased=False),
            }
            for layer, values in centred.items()
        }
        all_of = torch.stack([*centred.values(), truth])
        between = torch.tensor([[cosine(a, b) for b in all_of] for a in all_of])
        output = centred["output"]
        spread = output.square().mean().sqrt().clamp_min(torch.finfo(output.dtype).tiny)
        return Scores(
            metrics=per_layer["output"],
            per_layer=per_layer,
            selected={"pictures": len(sample.labels)},
            # The cosine takes no notice of the scale, but 16-bit floats do.
            arrays=sample.arrays("gram", output / spread),
            figure=heat_maps(
                [HeatMap("", between, (*centred, "classes"), numbers=True)],
                f"Linear CKA of {len(sample.labels)} test pictures · {data.info.name}",
                "linear CKA, unbiased",
                (0.0, 1.0),
                note=f"output with the classes: {per_layer['output']['label_cka']:.3f}",
            ),
        )

    @staticmethod
    def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """Linear CKA of two encoders' outputs, unbiased, from their `Scores.arrays`.

        Raises:
            BenchError: they are of other pictures.
        """
        return cosine(*of_same_pictures("gram", one, other))
