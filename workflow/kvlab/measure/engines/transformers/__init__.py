"""Hugging Face transformers: one request at a time, padded batches, continuous batching."""
