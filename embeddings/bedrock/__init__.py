"""Amazon Bedrock as an embedding model."""
