"""Seeded skies with known truth."""
