"""The controller: ``domain`` decides (pure); store, cluster, rpc and metrics are the shell around it."""
