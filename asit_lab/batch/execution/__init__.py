"""Executes the points of a study: one process a point, watched from outside, handed to workers by Dask."""
