"""Exhaustive searches of the journal protocol and of the effect channel; see `search.py` for the command."""
