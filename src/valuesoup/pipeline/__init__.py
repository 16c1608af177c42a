"""The main job: its stages in the order of the paper's algorithm, the plan that joins them, and the run."""
