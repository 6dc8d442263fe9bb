"""What goes on while somebody watches: nothing is shown twice, and a controller may come and go."""
