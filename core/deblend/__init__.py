"""Multi-band deblending with factorised component models."""
