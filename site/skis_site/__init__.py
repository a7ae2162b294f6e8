"""Renders the website's pages from the store."""
