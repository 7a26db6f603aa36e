"""Gateways, workers and PostgreSQL break under load: is a step lost, or done twice?"""
