"""The OpenAI-compatible HTTP front: it parses, authenticates, places, streams and counts."""
