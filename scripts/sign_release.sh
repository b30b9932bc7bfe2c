#!/usr/bin/env bash
# Writes the SHA-256 sums of a release's files into SHA256SUMS beside them, prints them, and signs them if there is a key.
#
#   scripts/sign_release.sh [--sign KEY] DIR FILE...
#
#   --sign KEY   an SSH key, or the public half of one that an agent holds. Makes SHA256SUMS.sig, which docs/release.md
#                says how to verify
#
# Needs sha256sum, and ssh-keygen of OpenSSH 8.1 or newer to sign.
set -euo pipefail

key=""
if [[ "${1:-}" == --sign ]]; then
    key="${2:?--sign needs a value}"
    [[ -r "$key" ]] || { echo "sign_release.sh: there is no key $key" >&2 && exit 1; }
    shift 2
fi
(($# >= 2)) || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
out="$1"
shift

# A signature of other files is worse than none.
rm -f "$out/SHA256SUMS.sig"
(cd "$out" && sha256sum -- "$@" | tee SHA256SUMS)
[[ -z "$key" ]] || ssh-keygen -q -Y sign -n idunno-release -f "$key" "$out/SHA256SUMS"
