"""Schedules: sagas that are started at given times."""
