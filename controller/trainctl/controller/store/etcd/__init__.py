"""The state store in etcd v3, spoken through a small client of our own over ``grpc.aio`` (docs/adr/0003)."""
