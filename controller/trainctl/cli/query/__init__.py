"""Expressions over a command's data: paths, predicates, templates and columns, as kubectl users know them."""
