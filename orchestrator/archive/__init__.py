"""Records of topics in a directory or an object store: journals below where they were cut, and backups."""
