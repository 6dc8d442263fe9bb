"""The local installation: a controller and agents as processes of this machine."""
