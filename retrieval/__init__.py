"""Search, augmentation and generation: what turns indexed documents into cited answers."""

from retrieval.config import EXTRACTIVE, BedrockGenerationConfig, ExtractiveConfig, GenerationConfig, RetrievalConfig

__all__ = ["EXTRACTIVE", "BedrockGenerationConfig", "ExtractiveConfig", "GenerationConfig", "RetrievalConfig"]
