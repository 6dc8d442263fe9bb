"""The fork server: a small process with torch preloaded that forks the workers of an agent and is their parent.

Nothing in here but ``client`` is used by the agent; nothing imports grpc, so no child ever inherits its threads.
"""
