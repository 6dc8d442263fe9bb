"""What can be trained: a task turns a spec into a model, data, a loss and artifacts."""
