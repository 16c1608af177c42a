"""Search: which weights of the value vectors to evaluate, and on how many prompts."""

from valuesoup.search.adaptive import propose, start, start_size
from valuesoup.search.racing import clearly_beaten, clearly_below, parts
from valuesoup.search.surface import Surface, fit_surface
from valuesoup.search.weights import cube_grid, dirichlet, simplex_grid, sobol

__all__ = [
    "Surface",
    "clearly_beaten",
    "clearly_below",
    "cube_grid",
    "dirichlet",
    "fit_surface",
    "parts",
    "propose",
    "simplex_grid",
    "sobol",
    "start",
    "start_size",
]
