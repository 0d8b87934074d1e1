"""Runs engines and records what they hold: raw logs, nothing judged."""
