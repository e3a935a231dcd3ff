"""The fit of blends: observation, start, iteration, constraints, spectra."""
