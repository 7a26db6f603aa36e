"""Frozen nouns that every layer shares. No I/O, no clock, no chance."""
