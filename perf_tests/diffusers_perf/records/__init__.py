"""What a run and a baseline are, read and written. Imports no torch."""
