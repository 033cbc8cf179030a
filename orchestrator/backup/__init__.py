"""A whole installation in a directory or an object store, and from there in another cluster."""
