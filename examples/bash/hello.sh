# Says hello to who is named in the payload: {"name": "Jon", "place": "here"}.
payload=$(cat)
text() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" <<<"$payload"; }

name=$(text name)
if [ "$name" = root ]; then
  echo "name: root is nobody's name" >&2
  exit 65
fi
echo "somebody is ${name:-nobody}" >&2
printf '{"myField": "Hello, %s from %s"}\n' "${name:-Noone}" "$(text place)"
