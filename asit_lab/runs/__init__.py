"""A run on disk: its directory, snapshots, environment, and the listing of many. Needs no trainer."""
