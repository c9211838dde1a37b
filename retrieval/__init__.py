"""Search, augmentation and generation: what turns indexed documents into cited answers."""

from retrieval.config import EXTRACTIVE, ExtractiveConfig, GenerationConfig, RetrievalConfig

__all__ = ["EXTRACTIVE", "ExtractiveConfig", "GenerationConfig", "RetrievalConfig"]
