"""Money and service levels folded from the event log, and the workload recorded in it."""
