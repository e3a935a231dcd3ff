"""Coaddition: scaling, weights, clipped statistics, masks."""
