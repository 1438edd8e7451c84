"""Pure mathematics: embeddings in, scores out."""
