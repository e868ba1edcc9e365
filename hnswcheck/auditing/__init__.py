"""Which checks run at which level, again if the store changed, and what they amount to."""
