# Finds a virtual machine and Clojure for it: sets java, home, jars and version, or ends with 1.
set -eu
java=
for one in "$(command -v java || true)" "${JAVA_HOME:-/none}/bin/java" /usr/lib/jvm/*/bin/java /opt/java*/bin/java; do
  one=$(readlink -f "$one" 2>/dev/null) || continue
  home=${one%/bin/java}
  [ -x "$one" ] && [ -r "$home/release" ] || continue
  machine=$(sed -n 's/^JAVA_VERSION="\([0-9][0-9._]*\)"$/\1/p' "$home/release")
  if [ "${machine%%.*}" -ge 17 ]; then
    java=$one
    break
  fi
done
[ -n "$java" ] || exit 1
jars=
# The first holds all; beside the second stand the two that it needs.
for jar in /usr/local/lib/clojure/libexec/clojure-tools-*.jar; do
  [ ! -r "$jar" ] || jars=$jar
done
if [ -z "$jars" ]; then
  for jar in /usr/share/java/clojure-1.*.jar; do
    [ ! -r "$jar" ] || jars=$(readlink -f "$jar")
  done
  [ -n "$jars" ] || exit 1
  version=$jars
  jars=$jars:/usr/share/java/spec.alpha.jar:/usr/share/java/core.specs.alpha.jar
else
  version=$jars
fi
version=$(echo "$version" | sed -n 's/.*-\([0-9]*\.[0-9]*\.[0-9]*\)[^/]*\.jar$/\1/p')
[ -n "$version" ] || exit 1
# What is prepared is for both.
version=$version+java$machine
