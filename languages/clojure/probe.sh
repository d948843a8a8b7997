# Says which Clojure this is, by the names of files: to start it takes a hundred times as long.
. "$(dirname "$0")/find.sh"
# Debian keeps configuration apart: of the JDK, of Maven, and the machine's certificates.
printf '{"executable": "%s", "version": "%s", "prefixes": ["%s", "%s", "%s", "%s"]}\n' \
  "$java" "$version" "$home" "/etc/java-${machine%%.*}-openjdk" /etc/maven /etc/ssl/certs/java
