"""Deblended models, footprints and what is made of them."""
