"""Reranking models on Amazon Bedrock, by Rerank of its agent runtime."""
