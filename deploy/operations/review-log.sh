#!/usr/bin/env bash
# Checks an audit log against the checkpoint kept from the last review, prints what is new and needs a person's eye,
# and keeps the new checkpoint. For cron on a machine that the log's writer cannot reach.
#
#   review-log.sh LOG PUBLIC_KEY KEPT     KEPT: folder of checkpoints; the newest is KEPT/latest
#
# Exit codes: 0 nothing to look at; 1 altered, or taken back; 4 there are refusals, failures or changes of keys.
set -euo pipefail

log=$1 key=$2 kept=$3
mkdir -p "$kept"
since=()
[[ -e "$kept/latest" ]] && since=(--since "$kept/latest")
cp "$log/checkpoint" "$kept/.new" # first: what is written meanwhile only adds to it
tempo log verify "$log" --key "$key" "${since[@]}"
tempo log verify "$log" --key "$key" --since "$kept/.new" >/dev/null
stamp=$(date -u +%Y%m%dT%H%M%SZ)
mv "$kept/.new" "$kept/$stamp"
seen=0
[[ -e "$kept/latest" ]] && seen=$(sed -n 2p "$kept/latest") # the second line of a checkpoint is its size
kinds=(--kind integrity_failure --kind key_refused --kind key_changed --kind log_recovered)
new=$(tempo log show "$log" --key "$key" "${kinds[@]}" --json | python3 -c '
import json, sys
for row in json.load(sys.stdin)["rows"]:
    if row["index"] >= int(sys.argv[1]):
        what = ", ".join(f"{k}={v}" for k, v in row["fields"].items() if k not in ("before", "after"))
        print(row["index"], row["at"], row["kind"], what)
' "$seen")
ln -sf "$stamp" "$kept/latest"
if [[ -n "$new" ]]; then
  echo "To be looked at, since the last review:"
  echo "$new"
  exit 4
fi
