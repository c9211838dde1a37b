"""Pure functions from records to documents: decode, order, fold, render, chunk, diff."""
