"""KV-cache allocators: contiguous chunks from a buddy pool, or blocks on demand."""
