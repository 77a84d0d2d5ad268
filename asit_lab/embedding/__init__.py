"""Embeddings of whole data sets: computed, cached, projected, written to files, searched."""
