"""Parts that several protocols share: heads, training loops, metrics."""
