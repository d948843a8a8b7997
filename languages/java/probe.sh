# Says what a JDK is, by the file that describes it: to start it takes fifty times as long.
home=$(dirname "$(dirname "$1")")
[ -x "$home/bin/javac" ] || exit 1
version=$(sed -n 's/^JAVA_VERSION="\([0-9][0-9._]*\)"$/\1/p' "$home/release")
[ "${version%%.*}" -ge 17 ] || exit 1
# Debian keeps configuration apart: of the JDK, of Maven, and the machine's certificates.
printf '{"executable": "%s", "version": "%s", "prefixes": ["%s", "%s", "%s", "%s"]}\n' \
  "$1" "$version" "$home" "/etc/java-${version%%.*}-openjdk" /etc/maven /etc/ssl/certs/java
