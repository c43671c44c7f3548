"""Loads of a campaign that use features, each with the checks of what its card promises."""

from cache.testing.features.load import NAMES, Features, draw_features

__all__ = ["NAMES", "Features", "draw_features"]
