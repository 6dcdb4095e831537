"""Parts that several methods or protocols share: heads and their training, and scores."""
