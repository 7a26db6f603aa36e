"""A fleet plan as files for the tools that rent machines.

The plan says which machines; what runs on them is the user's, so that no file here starts any
work by itself.
"""
