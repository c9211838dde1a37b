"""What `ragstream status` shows, and how it is collected."""
