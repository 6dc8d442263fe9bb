#!/bin/sh
# Prints the folder of the system's own etcd and etcdctl; installs Debian's where there are none and root may.
if ! command -v etcd >/dev/null 2>&1 || ! command -v etcdctl >/dev/null 2>&1; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "error: the system tests need etcd and etcdctl; on Debian: apt-get install etcd-server etcd-client" >&2
    exit 1
  fi
  echo "installing etcd for the tests of the store ..." >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends etcd-server etcd-client; } >&2 || {
    echo "error: the system tests need etcd, and apt-get could not install it; its own words are above" >&2
    exit 1
  }
fi
dirname "$(command -v etcd)"
