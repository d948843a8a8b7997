# Compiles the worker and common packages once, so that builds find them compiled.
set -eu
here=$(dirname "$0")
out=$PWD
tmp=${TMPDIR:-/tmp}
export HOME="$tmp" GOPATH="$tmp/gopath" GOCACHE="$out/cache" GOTOOLCHAIN=local GOFLAGS= GOENV=off
export GOPROXY=off CGO_ENABLED=0
mkdir -p "$tmp/warm/worker"
cp "$here/worker.go" "$tmp/warm/worker/"
cd "$tmp/warm"
printf 'module warm\n\ngo 1.18\n' > go.mod
cat > main.go <<'GO'
package main

import (
	_ "bufio"
	_ "crypto/sha256"
	_ "encoding/base64"
	_ "encoding/csv"
	_ "html/template"
	_ "net/http"
	_ "regexp"
	_ "text/template"
	_ "warm/worker"
)

func main() {}
GO
"$1" build -o "$tmp/warmed" .
