"""How much of a segment is read: one module per level."""
