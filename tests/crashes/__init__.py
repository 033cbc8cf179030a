"""Processes that kill themselves at the k-th call they make to Kafka or to RocksDB: `python -m tests.crashes`."""
