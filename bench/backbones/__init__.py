"""Backbones: every network behind the one face `bench.api.Backbone`, built by name.

Importing this imports no torch, so that the command line can list the names at once.
"""

from bench.backbones.build import build
from bench.backbones.catalog import names
from bench.backbones.weights import load_weights

__all__ = ["build", "load_weights", "names"]
