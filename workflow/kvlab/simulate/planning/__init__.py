"""What fits on a GPU, from a model, lengths and memory alone."""
