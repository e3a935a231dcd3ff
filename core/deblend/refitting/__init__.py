"""Warm restarts: peaks added or dropped, parents fitted again."""
