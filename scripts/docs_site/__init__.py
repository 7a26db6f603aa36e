"""The documentation site: pages of the reference, written from the code, and what MkDocs needs.

`pages.generated` makes every page that is not a file under docs/; `hook` hands them to MkDocs.
Nothing but `hook` knows MkDocs.
"""
