"""Optional parts of a request: one that is left out is off. Each says which stages it makes of those before it."""

GROUPS = ("init",)
"""The request's fields that are groups, in the order in which they change the stages."""
