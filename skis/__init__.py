"""The front door of the sKis Atlas: the command line, and the build that calls the wings in their order."""
