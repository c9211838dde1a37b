"""Embedding models behind Amazon SageMaker endpoints."""
