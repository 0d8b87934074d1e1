"""Checks that what the page shows is what the logs hold: verify, claims, comparison, packed runs, crate."""
