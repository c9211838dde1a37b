"""Amazon DocumentDB as a vector store."""
