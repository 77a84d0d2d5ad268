"""Inspects a model on clips: attention, reconstruction error, example reconstructions."""
