"""The knowledge wing of the sKis Atlas: vocabulary, entries and their checks, the store, the list and the exports.

Data flows one way: YAML files are read and checked (`reading`, `entry`, `checking`), written to SQLite (`store`),
and everything else (`awesome`, `exports`, the website) reads the store through `atlas`.
"""
