"""KV retention: which pages and tokens stay, who may reuse them, and what goes first."""
