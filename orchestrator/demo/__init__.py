"""A thousand orders over a real broker while a worker and a service are killed: `saga demo`."""
