"""The driver of `index_documents` with readers: the assignment of partitions, and the positions of each store."""
