"""``trainctl doctor``: facts are gathered at the edge, judged by pure functions, shown with a remedy each."""
