#!/bin/sh
# A stand-in for a service in tests of the supervisor: says it is ready, announces itself, ends on SIGTERM.
# DOUBLE_LOG gets a line a start and a stop; DOUBLE_BROKEN=<kind> makes that kind end at once.
kind=${0##*/reelkv-}
while [ $# -gt 0 ]; do
    case $1 in
    --name) name=$2 ;;
    --listen) listen=$2 ;;
    --redis) redis=${2#unix:} ;;
    esac
    shift
done
if [ "$DOUBLE_BROKEN" = "$kind" ]; then
    echo "cannot go on: the test wants it so" >&2
    exit 3
fi
trap 'echo "stop $name" >>"$DOUBLE_LOG"; exit 0' TERM
echo "start $name" >>"$DOUBLE_LOG"
echo "hello from $name" >&2
printf '{"ready":true,"service":"%s","addresses":["%s"]}\n' "$kind" "$listen"
while :; do
    now=$(date +%s%3N)
    redis-cli -s "$redis" hset "reelkv:1:workers:$kind" "$name" "{\"address\":\"$listen\",\"pid\":$$,\
\"started_ms\":$now,\"seen_ms\":$now,\"streams\":0,\"capacity\":1,\"draining\":false}" >/dev/null 2>&1
    sleep 0.2 &
    wait $!
done
