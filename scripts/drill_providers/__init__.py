"""Three providers on hosts of their own: one at a time is lost, slow, or answers wrongly."""
