"""PSF matching: solving and applying kernels."""
