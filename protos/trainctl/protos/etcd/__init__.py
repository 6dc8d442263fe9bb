"""The part of etcd v3's wire that the state store speaks; field numbers are etcd's own."""
