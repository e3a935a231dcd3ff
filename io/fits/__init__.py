"""FITS files of any kind: structure, reading, writing, provenance."""
