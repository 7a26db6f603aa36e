"""What runs: the fold of events into fleet state, and the frozen view that policies see."""
