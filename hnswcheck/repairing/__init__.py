"""Repair: planned, built or patched, swapped in, verified."""
