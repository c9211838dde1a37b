"""Amazon OpenSearch as a vector store."""
