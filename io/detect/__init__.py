"""Detections, ours and other programs'."""
