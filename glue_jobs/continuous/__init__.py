"""The driver's side of `index_documents` with readers: who reads what, and how far each store is."""
