"""Messages of the API as text for people; pure functions."""
