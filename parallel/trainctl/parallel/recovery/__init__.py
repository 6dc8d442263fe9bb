"""How a worker enters a generation: build the group, finish or discard the open step, obtain the state, agree."""
