"""How many cases each reader is given by `make test`: ten thousand at least, in all."""

CASES = {
    "configurations": 1800,
    "whole demos": 60,
    "damaged configurations": 900,
    "shapes of YAML": 500,
    "overrides": 400,
    "rows": 1500,
    "damaged JSON": 900,
    "damaged tables": 500,
    "shapes of rows": 500,
    "adapters": 900,
    "damaged adapters": 700,
    "results": 1400,
    "damaged results": 600,
    "checks": 1200,
    "studies": 500,
    "records": 600,
    "artifacts": 400,
}
LEAST = 10_000
