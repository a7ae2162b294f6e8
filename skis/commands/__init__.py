"""The commands of `skis`, each in the file of its name."""
