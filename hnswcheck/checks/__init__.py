"""The judges: each takes what was read and yields findings; none prints or repairs."""
