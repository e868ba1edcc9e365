"""All that writes to a store: locked, journalled, undoable."""
