"""The rule: numbers in, verdict out. Imports no torch, no files, no clock."""
