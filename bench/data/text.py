"""Captions as tokens: CLIP's byte-pair encoding, as open_clip keeps it (arXiv:2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

CONTEXT = 77  # tokens, start and end included; CLIP's
VOCABULARY = 49408  # CLIP's; the end token has the highest number


def tokenize(captions: Sequence[str]) -> Tensor:
    """The tokens of `captions`, `[N, L]` int64, L at most 77: start, words, end, then zeros.

    L is the longest caption's; longer ones than 77 tokens are cut and still end with the end token.
    """
    if not captions:
        return torch.zeros(0, 2, dtype=torch.long)
    tokens: Tensor = _tokenizer()(list(captions))
    longest = int(tokens.argmax(1).max()) + 1  # a 0 may also be an exclamation mark
    return tokens[:, :longest].contiguous()


def detokenize(tokens: Tensor) -> list[str]:
    """The captions that `tokens` `[N, L]` stand for: lower case, a space between any two words."""
    ends = tokens.argmax(1).tolist()
    rows = zip(tokens.tolist(), ends, strict=True)
    return [_tokenizer().decode(row[1:end]).strip() for row, end in rows]


@cache
def _tokenizer() -> Any:
    import open_clip  # takes seconds to import

    return open_clip.SimpleTokenizer(context_length=CONTEXT)
