"""Files that go into folders for transformers: they need torch and transformers, and nothing of this package."""
