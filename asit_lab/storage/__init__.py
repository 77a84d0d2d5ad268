"""Files that are whole or absent, one writer a folder, JSON, progress bars and words for the terminal."""
