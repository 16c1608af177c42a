"""valuesoup."""
