"""Pure decisions: which pool and replica takes a step, and in which order steps start."""
