"""The store: the tables, which are also the objects that everything right of it reads, and the queries."""
