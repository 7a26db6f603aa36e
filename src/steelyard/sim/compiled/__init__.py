"""The compiled path of the simulator: the same world on arrays, for fleets of any size."""
