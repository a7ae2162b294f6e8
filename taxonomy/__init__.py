"""The knowledge wing of the sKis Atlas, in the order in which its data flows.

`vocabulary/*.yaml` and the files below `papers/` are read and checked by `entries`, written to SQLite by `store`, and
everything else (`exports`, the analyses, the website, the command line) reads the store.
"""
