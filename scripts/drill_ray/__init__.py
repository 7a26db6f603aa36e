"""A node of a Ray cluster is killed, or given notice, under durable tasks: is a step lost?"""
