"""The only reader of settings, of packaged tables and of the environment."""
