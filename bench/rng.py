"""Counter-based randomness: every draw is named by where it happens, so nothing has to be saved.

A generator seeded from (seed, epoch, step, rank, what) gives the same numbers whether the run
came there in one go or was killed and resumed, and touches no global state.
"""

from __future__ import annotations

import hashlib

import torch


def fold(*parts: int | str) -> int:
    """A 63-bit seed from any sequence of numbers and names."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device`, seeded by `fold(*parts)`."""
    return torch.Generator(device=device).manual_seed(fold(*parts))
