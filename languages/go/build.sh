# Compiles a function and the worker into one program: GO SOURCE OUTPUT LAYER HANDLER.
set -eu
go=$1 source=$2 output=$3 layer=$4 handler=${5:-}
here=$(dirname "$0")
tmp=${TMPDIR:-/tmp}
fail() {
  echo "$1" >&2
  exit 1
}

case $handler in
  *[!A-Za-z0-9_/.-]* | /* | *..*) fail "handler \"$handler\": write PACKAGE.Function or Function, such as orders.Handle" ;;
esac
handler=${handler#./}
function=${handler##*.}
[ -n "$function" ] || function=Handle
package=${handler%"$function"}
package=${package%.}
case $function in
  [A-Z]*) ;;
  *) fail "handler \"$handler\": a function that others call begins with a capital letter" ;;
esac

export HOME="$tmp" GOPATH="$tmp/gopath" GOCACHE="$tmp/cache" GOTOOLCHAIN=local GOENV=off
export GOPROXY=off GOSUMDB=off CGO_ENABLED=0 GOFLAGS=
[ ! -d "$here/cache" ] || cp -r "$here/cache" "$GOCACHE"
work=$tmp/work
mkdir "$work"
cp -r "$source/." "$work"
chmod -R u+w "$work"
cd "$work"
if [ ! -f go.mod ] && [ -f "$layer/go.mod" ]; then
  cp "$layer/go.mod" .
fi
[ -f go.mod ] || printf 'module function\n\ngo 1.18\n' > go.mod
if [ -d "$layer/mod" ] && [ ! -d vendor ]; then
  # Sums were compared when the layer was made.
  export GOMODCACHE="$layer/mod" GOFLAGS=-mod=mod
fi
module=$(sed -n 's/^module[[:space:]]*"\{0,1\}\([^"[:space:]]*\).*/\1/p' go.mod | head -n 1)
[ -n "$module" ] || fail "go.mod names no module"
directory=./$package
[ -d "$directory" ] || fail "handler \"$handler\": there is no directory $package in the source"
set -- "$directory"/*.go
[ -e "$1" ] || fail "there is no Go file in ${package:-the source}"
for file; do
  if grep -q '^package main[[:space:]]*$' "$file"; then
    fail "$(basename "$file") is of package main: give the package another name, such as function, and export $function"
  fi
done

path=$module${package:+/$package}
mkdir -p dispatch_worker/worker
cp "$here/worker.go" dispatch_worker/worker/
cat > dispatch_worker/main.go <<GO
package main

import (
	handler "$path"
	"$module/dispatch_worker/worker"
)

func main() { worker.Serve("${package:+$package.}$function", handler.$function) }
GO
"$go" build -ldflags '-s -w' -o "$output/worker" ./dispatch_worker
