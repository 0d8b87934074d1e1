"""What reaches a reader: figures, notebook, page, claims, and the proof of its numbers."""
