"""The state store: revisions, compare-and-swap transactions, leases, watches; embedded here, etcd behind the port."""
