# Sourced by the scripts beside it. Installs what is missing through apt where that is possible, and otherwise names it.
# shellcheck shell=bash

can_install() {
  command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

updated=
# Packages are installed without starting services: policy-rc.d answers 101 ("not allowed") as long as apt runs.
apt_install() {
  if [ -z "$updated" ]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update || return 1
    updated=yes
  fi
  local policy=/usr/sbin/policy-rc.d own=
  if [ ! -e "$policy" ]; then
    own=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >/dev/null
  local rc=$?
  [ -n "$own" ] && as_root rm -f "$policy"
  return "$rc"
}

missing=()
# need PACKAGE CHECK...: remembers PACKAGE when the command CHECK fails.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

# Installs what `need` found missing; else says exactly what to do and fails.
install_missing() {
  [ "${#missing[@]}" -eq 0 ] && return 0
  if can_install; then
    echo "Installing: ${missing[*]}"
    apt_install "${missing[@]}" && return 0
    echo "apt-get could not install: ${missing[*]}" >&2
  else
    echo "These packages are missing, and this user cannot install them: ${missing[*]}" >&2
    echo "Run as root: apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
  fi
  return 1
}

has_client() {
  local dir
  for dir in "${BACKUPD_PG_BIN:-/nonexistent}" /usr/lib/postgresql/*/bin; do
    if [ -x "$dir/pg_dump" ] && [ -x "$dir/pg_restore" ] && [ "$("$dir/pg_dump" --version | sed -E 's/.*\) ([0-9]+).*/\1/')" -ge 15 ]; then return 0; fi
  done
  return 1
}
