"""Seam."""
