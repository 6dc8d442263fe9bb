"""The layout algebra: who holds which part of which tensor, and what to copy from whom. Pure (design section 4)."""
