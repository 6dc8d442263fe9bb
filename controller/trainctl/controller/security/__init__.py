"""Certificates: the installation's own authority, what it signs, and who shows which of them."""
