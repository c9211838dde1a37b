"""Embedding models in the process: sentence encoders exported to ONNX."""
