read -r payload
name=${payload#*'"name":"'}
place=${payload#*'"place":"'}
printf '{"myField":"Hello, %s from %s"}' "${name%%'"'*}" "${place%%'"'*}"
