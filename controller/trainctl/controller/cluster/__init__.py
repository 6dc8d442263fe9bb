"""The cluster port: who creates, observes and deletes agents."""
