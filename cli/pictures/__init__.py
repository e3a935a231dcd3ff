"""Figures; the only modules that import matplotlib, and only when a picture is asked for."""
