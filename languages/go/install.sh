# Downloads the modules that a go.mod names: GO MANIFEST LAYER.
set -eu
tmp=${TMPDIR:-/tmp}
export HOME="$tmp" GOPATH="$tmp/gopath" GOCACHE="$tmp/cache" GOTOOLCHAIN=local GOENV=off
export GOMODCACHE="$3/mod" GOFLAGS=-modcacherw
cp "$2" "$3/go.mod"
cd "$3"
"$1" mod download all
