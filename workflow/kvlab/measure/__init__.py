"""Runs engines and writes raw logs. What counts is decided later, in the analysis."""
