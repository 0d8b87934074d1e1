"""Who may hold which slot of a KV pool: contiguous chunks from a buddy pool, or blocks on demand."""
