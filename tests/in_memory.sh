#!/bin/sh
# Runs pytest, given with its arguments, with temporary folders in memory where there is room: on a disk most tests wait for it.
room_mib=$(df --output=avail -B1M /dev/shm 2>/dev/null | tail -n 1)
if [ "${room_mib:-0}" -ge 4096 ] && [ -w /dev/shm ]; then
  temp=$(mktemp -d /dev/shm/pytest-XXXXXX)
else
  temp=$(mktemp -d)
fi
trap 'rm -rf "$temp"' EXIT
"$@" --basetemp "$temp/all"
