"""A benchmark and leaderboard harness for self-supervised learning on images."""

__version__ = "0.1.0"
