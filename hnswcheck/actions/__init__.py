"""What changes a store: all or nothing, undoable, and saying before what it does."""
