"""Reading a leaderboard page back: its tables, by their headings."""

from __future__ import annotations

import re

import pandas as pd


def tables(text: str) -> dict[str, pd.DataFrame]:
    """Every table of the page, by the heading or the bold line above it."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.setdefault(heading, []).append([cell.strip() for cell in cells])
        elif match := re.match(r"###? (.*)|\*\*(Beside.*)\*\*|<details><summary>([^<]*)", line):
            heading = next(filter(None, match.groups()))
    return {k: pd.DataFrame(rows[2:], columns=rows[0]) for k, rows in found.items()}


def results_of(text: str) -> pd.DataFrame:
    """The main table of a page with one group."""
    (found,) = (table for table in tables(text).values() if "rank" in table)
    return found.set_index(found["method"].str.extract(r"`(.*)`")[0])
