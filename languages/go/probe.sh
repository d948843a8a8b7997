# Says which Go this is, and where the rest of it stands.
set -eu
tmp=${TMPDIR:-/tmp}
export HOME="$tmp" GOCACHE="$tmp/cache" GOTOOLCHAIN=local GOFLAGS= GOENV=off
version=$("$1" env GOVERSION)
root=$("$1" env GOROOT)
version=${version#go}
minor=${version#*.}
minor=${minor%%[!0-9]*}
# Generics came with 1.18, and the worker uses `any`.
[ "${version%%.*}" -gt 1 ] || [ "${minor:-0}" -ge 18 ] || exit 1
printf '{"executable": "%s", "version": "%s", "prefixes": ["%s", "%s"]}\n' \
  "$root/bin/go" "${version%%[!0-9.]*}" "$root" "/usr/share/${root##*/}"
