"""Readers of what others record: traces and logs in their own formats, turned into workloads."""
