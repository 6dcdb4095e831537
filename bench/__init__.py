"""A benchmark and leaderboard harness for self-supervised learning on images."""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait, by default. Beside any other busy process on a small
# machine that made a training step 10 to 30 times slower (measured); sleeping costs nothing.
# It must be set before torch is imported, so it is here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
