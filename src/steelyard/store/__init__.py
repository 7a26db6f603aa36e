"""What lies on disk: the event log, and workload files."""
