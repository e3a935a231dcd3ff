"""PSFs and matching kernels in files."""
