"""Search: which weights of the value vectors to evaluate."""

from valuesoup.search.weights import cube_grid, dirichlet, simplex_grid, sobol

__all__ = ["cube_grid", "dirichlet", "simplex_grid", "sobol"]
