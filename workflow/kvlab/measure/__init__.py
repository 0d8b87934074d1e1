"""Runs engines and writes raw logs. Which runs count is decided later, in the analysis."""
