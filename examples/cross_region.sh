#!/usr/bin/env bash
# The whole disaster, played on this machine: region A writes and ships its log; its archive is copied to region B, object by
# object and out of order; A is lost; B restores in two phases while three workers, one of which is killed, compact the log
# into a place of their own, since nothing is written to the copy; what comes out is compared; then years of log and of
# truncation. Ends with 0 if nothing differs.
set -euo pipefail

morphkv="${MORPHKV:-target/release/morphkv}"
keys="${CROSS_REGION_KEYS:-20000}"
rounds="${CROSS_REGION_ROUNDS:-5}"
morphkv="$(command -v "$morphkv" || true)"
[ -n "$morphkv" ] || { echo "build the program first (make build), or say where it is: MORPHKV=... $0" >&2; exit 2; }
morphkv="$(realpath "$morphkv")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
a="file://$work/region-a" b="file://$work/region-b" compacted="file://$work/region-b-compacted"

# All of it but what is asked for: results, with what goes wrong still on stderr.
quietly() { "$morphkv" "$@" --quiet >/dev/null; }
say() { printf '\n== %s\n' "$*"; }
field() { grep -o "\"$1\":[^,}]*" | head -1 | cut -d: -f2- | tr -d '"'; }
digest() { "$morphkv" digest "$1" --json 2>/dev/null | grep -o '"entries":[0-9]*\|"digest":"[^"]*"' | sort | tr '\n' ' '; }
ship() { quietly log ship db --once; }
# load KEYS ROUND: a batch of keys of the same names each time, with other values.
load() {
  awk -v keys="$1" -v round="$2" 'BEGIN {
    for (n = 0; n < keys; n++) printf "{\"key\":\"/tenant%d/item/%06d\",\"value\":\"round %d, %s\"}\n", n % 7, n, round, "some value that takes place"
  }' | quietly load db
}
same() { # what it should be, what it is
  if [ "$1" != "$2" ]; then echo "DIFFERS: $1 and $2" >&2; exit 1; fi
  echo "the same: $1"
}

say "region A: a database, its log backup, and what is written since"
quietly create db --encoding hierarchical
load "$keys" 0
mkdir region-a region-b
quietly log attach db --archive "$a"
ship
for round in 1 2 3 4; do
  load "$((keys / 4))" "$round"
  quietly delete db "/tenant$round/item/00000$round"
  quietly put db "/round/$round" "$round"
  ship
done
expected="$(digest db)"
echo "$expected"

say "its archive is copied to region B, object by object, in another order"
# A digest of its name is as good an order as any, and the same each time.
(cd region-a && find . -type f ! -path './v1/pins/*' | while read -r object; do
  printf '%s %s\n' "$(printf '%s' "$object" | cksum | cut -d' ' -f1)" "$object"
done | sort -n | cut -d' ' -f2-) >objects
while read -r object; do
  mkdir -p "region-b/$(dirname "$object")"
  cp "region-a/$object" "region-b/$object"
done <objects
copied() { (cd region-b && find . -type f -exec cksum {} + | sort); }
copied >before
echo "$(wc -l <objects) objects"

say "region A is lost"
mv region-a lost
mv db lost-db

say "region B: phase 1 begins; three workers compact the log meanwhile, and the second is killed"
quietly restore start copy --archive "$b" --to latest --replica --two-phase --compaction disaster \
  --compaction-at "$compacted" --wait-timeout 10m
"$morphkv" restore run copy 2>coordinator.log >restored.txt &
coordinator=$!
compact() {
  "$morphkv" archive compact "$b" --name disaster --shard "$1/3" --to latest --out "$compacted" --json \
    >"shard-$1.json" 2>"shard-$1.log"
}
compact 1 & one=$!
"$morphkv" archive compact "$b" --name disaster --shard 2/3 --to latest --out "$compacted" --json >killed.json 2>&1 & victim=$!
compact 3 & three=$!
kill -KILL "$victim" 2>/dev/null || true
wait "$victim" 2>/dev/null && echo "the second was faster than its death" || echo "the second was killed"
wait "$one" "$three"
compact 2
for shard in 1 2 3; do echo "shard $shard: segments $(field shard_first_segment <"shard-$shard.json") to $(field shard_end_segment <"shard-$shard.json")"; done

say "phase 2 applies the log"
wait "$coordinator" || { cat coordinator.log >&2; exit 1; }
cat coordinator.log restored.txt
"$morphkv" restore status copy --json >status.json
[ "$(field phase <status.json)" = complete ] || { cat status.json >&2; exit 1; }
grep -q '"mode":{"fast"' status.json || { echo "the compaction was not used" >&2; cat status.json >&2; exit 1; }
same "$expected" "$(digest copy)"

say "the same without the compaction"
quietly restore run raw --archive "$b" --to latest --replica --two-phase --compaction never --wait-timeout 1s
"$morphkv" restore status raw --json >raw.json
grep -q '"mode":{"raw"' raw.json || { echo "it was no raw restore" >&2; cat raw.json >&2; exit 1; }
same "$expected" "$(digest raw)"
copied >after
cmp before after || { echo "something was written to the copy" >&2; exit 1; }
echo "the copy in region B is as it was, byte for byte"

say "region B goes on: its copy ships into an archive of its own, and years of truncation"
mv copy db
rm -rf copy.restore copy.lock raw raw.restore raw.lock
mkdir region-c
c="file://$work/region-c"
quietly log attach db --archive "$c"
for round in $(seq 1 "$rounds"); do
  load "$((keys / 4))" "$((10 + round))"
  ship
  quietly log snapshot db
  load 100 "$((100 + round))"
  ship
  # The exit code tells the truth: what was not deleted is no success.
  "$morphkv" archive truncate "$c" --until latest --grace 0 -y --json >truncated.json
  objects="$(find region-c -type f | wc -l)"
  echo "round $round: $(field deleted_objects <truncated.json) objects deleted, $objects stand, $(du -sk region-c | cut -f1) KiB"
  [ "$objects" -le 60 ] || { echo "the archive grows" >&2; exit 1; }
done
quietly archive verify "$c"
quietly restore run last --archive "$c" --to latest
same "$(digest db)" "$(digest last)"
say "nothing differs"
