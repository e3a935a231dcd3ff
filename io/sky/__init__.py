"""The sky: coordinate systems, grids, regions."""
