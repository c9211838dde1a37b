"""Reranking models behind Amazon SageMaker endpoints: Text Embeddings Inference with a reranker."""
