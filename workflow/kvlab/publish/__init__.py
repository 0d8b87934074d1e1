"""What readers see: figures, notebook, page, claims, and the verification of its numbers."""
