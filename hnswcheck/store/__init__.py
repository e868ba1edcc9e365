"""What one persist directory says, read-only, at one moment. Nothing here judges."""
