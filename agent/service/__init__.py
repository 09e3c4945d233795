"""The use cases: one sync, the daemon, status and forget."""
