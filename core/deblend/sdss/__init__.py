"""Deblending one band at a time with symmetric templates, as SDSS did."""
