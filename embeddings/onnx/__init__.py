"""A sentence encoder exported to ONNX as an embedding model."""
