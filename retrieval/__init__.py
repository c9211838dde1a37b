"""Search, augmentation and generation: what turns indexed documents into cited answers."""

from retrieval.config import EXTRACTIVE, AccessConfig, ExtractiveConfig, GenerationConfig, RetrievalConfig

__all__ = ["EXTRACTIVE", "AccessConfig", "ExtractiveConfig", "GenerationConfig", "RetrievalConfig"]
