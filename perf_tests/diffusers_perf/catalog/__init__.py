"""What a declaration is, and which there are. Imports no torch."""
