"""Conversations and profiles in Amazon MemoryDB."""
