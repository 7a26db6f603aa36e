"""Thin commands over the other packages; `steelyard.cli.app` holds the program."""
