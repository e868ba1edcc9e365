"""Real hnswlib and real chromadb, asked in a child process that may die."""
