"""What a model does on clips: attention, reconstruction error, example clips. Measures, not scores."""
