"""``python -m valuesoup``, also under ``accelerate launch -m``."""

from valuesoup.cli import main

main()
