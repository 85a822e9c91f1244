#!/bin/sh
# A demo device: a pretend press and its panel on loopback, and the agent that fronts them.
# DEVICE, GATEWAY and, for the first start, CA_SHA256 and SALLYPORT_TOKEN come from the environment.
set -eu
targets=/opt/sallyport/test/demo/targets
node "$targets/plc.ts" 1502 "$DEVICE" &
node "$targets/hmi.ts" 8080 1502 &

if [ ! -f /data/agent.json ]; then
  if [ -z "${CA_SHA256:-}" ] || [ -z "${SALLYPORT_TOKEN:-}" ]; then
    echo "this device has no identity: give its token and CA_SHA256, as 'sallyport device add $DEVICE' printed them" >&2
    exit 1
  fi
  sallyport agent enroll --gateway "$GATEWAY" --device "$DEVICE" --ca-sha256 "$CA_SHA256" --data /data \
    --target plc=tcp:127.0.0.1:1502 --target hmi=tcp:127.0.0.1:8080
fi
unset SALLYPORT_TOKEN
exec sallyport agent run --data /data
