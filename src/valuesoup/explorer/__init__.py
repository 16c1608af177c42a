"""The explorer: a local page on which a run's frontier is looked at, its dials are turned and its soups talked to."""

from valuesoup.explorer.server import PASSWORD, Explorer, build, launch

__all__ = ["PASSWORD", "Explorer", "build", "launch"]
