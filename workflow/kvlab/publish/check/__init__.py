"""Whether what a reader sees is what the logs say: verify, claims, comparison, packed runs, crate."""
