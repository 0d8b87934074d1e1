"""How much KV-cache memory and time PagedAttention saves, measured, with the way back from every number to its log."""

__version__ = "0.2.0"
