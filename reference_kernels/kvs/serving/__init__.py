"""Serving simulated: traces, a cost model, scheduling policies and replicas with a prefix cache each."""
