"""PSF models with one evaluator for all commands."""
