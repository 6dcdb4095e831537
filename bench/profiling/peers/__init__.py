"""Other libraries' versions of our ops, each imported only where it is measured."""
