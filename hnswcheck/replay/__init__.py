"""What replaying Chroma's log does to ids, labels, vectors and metadata."""
