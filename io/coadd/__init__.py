"""Inputs and outputs of coadds."""
