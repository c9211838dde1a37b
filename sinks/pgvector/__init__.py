"""PostgreSQL with pgvector as a vector store."""
