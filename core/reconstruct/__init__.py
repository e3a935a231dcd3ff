"""Flux redistribution and metrics from deblended models."""
