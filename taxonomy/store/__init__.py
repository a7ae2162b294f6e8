"""The store: its tables, whose rows are what exports, analyses, pages and commands read, and the queries."""
