#!/usr/bin/env bash
# What `npm test` needs beyond npm: PostgreSQL's programs, the stock tools that backups are opened with, and the servers that the
# storages are tested against. Does nothing when all is there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
# shellcheck source=scripts/tools.sh
. ./tools.sh

has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1"; }
has_file() { compgen -G "$1"; }

# The server is needed for its extensions, which the npm packages' servers lack.
need postgresql-client-15 has_client
need postgresql-15 has_file '/usr/lib/postgresql/15/bin/postgres'
need age has age
need zstd has zstd
need lz4 has lz4
need gzip has gzip
need jq has jq
need procps has pkill
need openssl has openssl
need openssh-server has sshd
need openssh-client has sftp
need libnss-wrapper has_file '/usr/lib/*/libnss_wrapper.so'
need curl has curl
need proftpd-core has proftpd
need proftpd-mod-crypto has_file '/usr/lib/proftpd/mod_tls.so'
need ceph-mon has ceph-mon
need ceph-osd has ceph-osd
need ceph-common has ceph
need radosgw has radosgw
need prometheus has promtool
need systemd has systemd-analyze
need debootstrap has debootstrap
need gnupg has gpg
need swift-proxy has swift-proxy-server
need swift-account has swift-account-server
need swift-container has swift-container-server
need swift-object has swift-object-server
install_missing || exit 1

# vsftpd and ProFTPD exclude each other as packages, so this one is only unpacked.
cache=../.cache/vsftpd
if ! has vsftpd >/dev/null && [ ! -x "$cache/usr/sbin/vsftpd" ]; then
  mkdir -p "$cache"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  chmod 755 "$scratch"
  if ! (cd "$scratch" && { apt-get -qq download vsftpd || { as_root apt-get -qq update && apt-get -qq download vsftpd; }; }) >/dev/null; then
    echo 'vsftpd is missing and cannot be downloaded; unpack the package with: apt-get download vsftpd && dpkg -x vsftpd_*.deb .cache/vsftpd' >&2
    exit 1
  fi
  dpkg -x "$scratch"/vsftpd_*.deb "$cache" || exit 1
fi
