"""Allocators served without an engine: the scheduler, its timeline, and a run's requests under other allocators."""
