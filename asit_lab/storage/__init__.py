"""Atomic files, locks on run directories, JSON, progress bars and tables for the terminal."""
