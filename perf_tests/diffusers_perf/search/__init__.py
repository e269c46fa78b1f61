"""Finds the fastest stack."""
