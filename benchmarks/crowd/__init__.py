"""Visitors of a server, each by the way that it comes, and what is promised of many at once."""
