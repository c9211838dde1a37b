"""Conversations and profiles in Amazon DocumentDB."""
