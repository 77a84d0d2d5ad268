"""Measures of a model on clips that are not scores: attention, reconstruction error, example reconstructions."""
