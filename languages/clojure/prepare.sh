# Compiles the worker, and puts it into one jar with Clojure: JAVA.
. "$(dirname "$0")/find.sh"
here=$(dirname "$0")
sources=${TMPDIR:-/tmp}/sources
mkdir -p "$sources/dispatch" "$sources/classes"
cp "$here/json.clj" "$here/channel.clj" "$here/handler.clj" "$here/worker.clj" "$sources/dispatch/"
"$1" -Xlog:disable -cp "$jars:$sources:$sources/classes" clojure.main "$here/jar.clj" "$sources/classes" "$jars"
