"""vLLM, its recorder, and what its workers report."""
