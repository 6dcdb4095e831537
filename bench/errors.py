"""The one exception that a user is meant to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake in the input, told in one line: what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class AbsentError(BenchError):
    """Data that are not on this machine."""


class BusyError(BenchError):
    """Another process is at the same work; its result can be used once it is done."""


def unknown(what: str, name: str, known: Iterable[str]) -> BenchError:
    """The error for a name that is not known, with the nearest ones that are."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return BenchError(f"no {what} called '{name}'; {hint}")
