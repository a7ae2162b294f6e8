"""KV compression: fewer bits, fewer dimensions, fewer channels, fewer bytes."""
