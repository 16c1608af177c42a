"""Measurements of valuesoup against its peers: one module per claim, run by ``python -m benchmarks``."""
