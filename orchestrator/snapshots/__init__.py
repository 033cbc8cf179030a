"""Copies of stores in a directory or an object store: a next owner begins there, not at its journal's start."""
