"""The controller's gRPC surface."""
