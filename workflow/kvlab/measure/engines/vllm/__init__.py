"""vLLM, its recorder, and what only its workers know."""
