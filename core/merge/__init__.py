"""Merging detections across bands."""
