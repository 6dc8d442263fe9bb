"""The few pieces of the outside world (clock, files, processes, fault points) that every shell needs."""
