"""Captions as tokens, against open_clip's own tokenizer."""

from __future__ import annotations

import open_clip
import pytest
import torch

from bench.data.text import CONTEXT, VOCABULARY, detokenize, tokenize

START, END = 49406, 49407  # CLIP's
CAPTIONS = [
    "A photo of a cat.",
    "On a wavy purple surface, a person in white; also a small pink house behind it.",
    "!",
    "? !?!",
    "Ünïcode, déjà vu & 3 <b>tags</b>",
]


def test_are_open_clips_without_the_padding_that_no_caption_needs() -> None:
    expected = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    tokens = tokenize(CAPTIONS)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, expected[:, : tokens.shape[1]])
    assert not expected[:, tokens.shape[1] :].any()
    assert (tokens == END).any(0)[-1], "the longest caption ends in the last column"


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_caption_alone_is_cut_after_its_end(caption: str) -> None:
    (row,) = tokenize([caption])
    assert (row[0].item(), row[-1].item()) == (START, END)
    assert torch.equal(row, tokenize([*CAPTIONS, caption])[-1][: len(row)])


def test_a_long_caption_is_cut_and_still_ends() -> None:
    tokens = tokenize(["cat " * 200])
    assert tokens.shape == (1, CONTEXT)
    assert tokens[0, -1] == END == VOCABULARY - 1
    assert detokenize(tokens) == [" ".join(["cat"] * (CONTEXT - 2))]


def test_no_captions_are_no_rows() -> None:
    assert tokenize([]).shape[0] == 0


def test_words_come_back_in_lower_case() -> None:
    tokens = tokenize(["A photo of a cat.", "A red mug in the snow under a clear sky"])
    assert detokenize(tokens) == ["a photo of a cat .", "a red mug in the snow under a clear sky"]
