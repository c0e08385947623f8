#!/usr/bin/env bash
# Records audit events from a shell script. Copy the function; it needs bash and curl.
#
#   audit EVENT [MESSAGE] [META]    META is JSON; the script stops if the event is not recorded.
set -euo pipefail

audit() {
  local url=${AUDIT_LOG_URL:-http://127.0.0.1:48291/append} body try status
  body="{\"event\":$(json "$1"),\"message\":$(json "${2-}"),\"meta\":${3-null}}"
  local answer
  answer=$(mktemp)
  for try in 1 2 3 4 5 6 7 8 9 10; do
    status=0
    # --noproxy: a proxy would take the event out of the pod. --include: the headers say whether to try again.
    curl --noproxy '*' --silent --show-error --max-time 45 --include -H 'Content-Type: application/json' \
      --data-binary "$body" "$url" >"$answer" || status=$?
    if [ "$status" -eq 0 ] && head -n 1 "$answer" | grep -q ' 200 '; then
      rm -f "$answer"
      return 0
    fi
    # Safe to send again: nobody listened (7), or the answer says that nothing was written and may be over soon.
    if [ "$status" -ne 7 ] && ! { grep -qi '^audit-written: no' "$answer" && head -n 1 "$answer" | grep -qE ' (408|429|5..) '; }; then
      break
    fi
    sleep 1
  done
  echo "audit: $1 was not recorded: $(tail -n 1 "$answer")" >&2
  rm -f "$answer"
  return 1
}

# A text as a JSON string.
json() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\r'/\\r}
  text=${text//$'\t'/\\t}
  printf '"%s"' "$text"
}

audit DATA_EXPORT "Exported results to \"CSV\"" '{"path":"/work/output/results.csv","rows":12500}'
