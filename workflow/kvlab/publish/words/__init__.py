"""Numbers, facts and messages in words, in each language."""
