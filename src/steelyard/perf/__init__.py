"""Figures to curves to predictions, and the one cost function."""
