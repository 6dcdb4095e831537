"""Times, bytes and shares as people read them."""

from __future__ import annotations

from bench.record.profile import Quantiles


def binary(count: float) -> str:
    """Bytes, in three digits: "1.5 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 999.5 or unit == "GiB":
            return f"{digits(count)} {unit}"
        count /= 1024
    raise AssertionError  # the loop ends at GiB


def digits(value: float) -> str:
    """Three digits of a number, without an exponent: "0.012", "1.23", "12.3", "1,230"."""
    if value == 0:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    places = 2 if abs(value) >= 0.9995 else 3
    return f"{value:.{1 if abs(value) >= 9.995 else places}f}"


def milliseconds(times: Quantiles | None, *, spread: bool = True) -> str:
    """The median and, in brackets, the quantiles p10-p90; "" where not measured."""
    if times is None:
        return ""
    if not spread:
        return digits(times.median)
    return f"{digits(times.median)} ({digits(times.p10)}-{digits(times.p90)})"


def percent(share: float | None) -> str:
    """A share of 1; "" where not measured."""
    return "" if share is None else f"{100 * share:.{0 if share >= 0.0995 else 1}f} %"


def sizes(dim: int | None, keys: int | None, dtype: str, batch: int | None = None) -> str:
    """The sizes of a loss's inputs, those that it has: "N=1,024 D=128 float32"."""
    named = {"N": batch, "D": dim, "K": keys}
    return " ".join([*(f"{key}={value:,}" for key, value in named.items() if value), dtype])
