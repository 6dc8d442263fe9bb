#!/bin/sh
# Prints the C++ compiler that torch.compile shall use on a CPU; installs g++ where there is none and root may.
for name in ${CXX:+"$CXX"} g++ clang++ c++; do
  if command -v "$name" >/dev/null 2>&1; then
    echo "$name"
    exit 0
  fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "error: the system tests need a C++ compiler, found none of g++, clang++, c++; on Debian: apt-get install g++" >&2
  exit 1
fi
echo "installing g++ for the tests of torch.compile ..." >&2
{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends g++; } >&2 || {
  echo "error: the system tests need a C++ compiler, and apt-get could not install g++; its own words are above" >&2
  exit 1
}
echo g++
