"""Messages from rank to rank, as far as loading needs them."""
