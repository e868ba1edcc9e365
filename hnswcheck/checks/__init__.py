"""The judges: facts in, findings out."""
