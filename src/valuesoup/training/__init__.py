"""The one loss, the one trainer, reference log-probabilities, and the pretraining of small bases."""
