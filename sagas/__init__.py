"""Sagas to run, read and copy: one use case a file, each with its services."""
