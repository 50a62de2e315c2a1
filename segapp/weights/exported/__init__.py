"""Whole networks in other libraries' formats, which carry the description that our checkpoints carry."""
