"""Data sources: one file a data set, each listing clips and labels."""
