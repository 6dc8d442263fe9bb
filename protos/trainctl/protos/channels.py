"""What all channels to controllers and to etcd have in common, whoever opens them."""

from __future__ import annotations

COMMON_OPTIONS = (
    # Else gRPC keeps a call that met a server in its last moment, in order to try it again by itself, and now and then
    # forgets it until its deadline (measured with 1.85: one of 150 changes of leader under three busy clients). Who
    # calls knows better what may be tried again.
    ("grpc.enable_retries", 0),
)
