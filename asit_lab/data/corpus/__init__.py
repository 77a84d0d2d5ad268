"""From many collections of recordings to one pretraining corpus on disk."""

from .build import Collection, Corpus, build_corpus, of_sources

__all__ = ["Collection", "Corpus", "build_corpus", "of_sources"]
