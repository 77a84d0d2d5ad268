"""Builds one pretraining corpus on disk from many collections of recordings."""

from .build import Collection, Corpus, build_corpus, of_sources

__all__ = ["Collection", "Corpus", "build_corpus", "of_sources"]
