"""What all units share: the contract, the error budget, paged layout, merging, timing, ceilings and peers."""
