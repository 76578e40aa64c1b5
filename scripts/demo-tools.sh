#!/usr/bin/env bash
# What `npm run demo` needs beyond npm: PostgreSQL's client programs, version 15 or newer.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
# shellcheck source=scripts/tools.sh
. ./tools.sh

need postgresql-client-15 has_client
install_missing
