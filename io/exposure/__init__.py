"""Exposures: image, mask, variance, PSF."""
