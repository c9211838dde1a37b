"""Conversations: a follow-up becomes a question of its own, is answered, and is kept."""
