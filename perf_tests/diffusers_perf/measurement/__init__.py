"""Builds, times, traces and counts; never judges."""
