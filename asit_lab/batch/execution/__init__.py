"""Runs the points of a study, each in a process of its own."""
