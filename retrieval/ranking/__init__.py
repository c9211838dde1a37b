"""Search: both halves of a search in one order, reranked where configured, in the index version that is active."""
