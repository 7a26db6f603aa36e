"""`python -m steelyard` is the command `steelyard`."""

from steelyard.cli.app import main

main()
