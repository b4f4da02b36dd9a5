#!/bin/bash
# Make this machine the head of a Ray cluster, or let it join one; docs/clusters.md explains it.
#
#   configs/clusters/node.sh head   OWN_IP [NAME]            # starts Ray, prints what to type next
#   configs/clusters/node.sh worker OWN_IP [NAME] HEAD_IP
#
# OWN_IP is this machine's address in a network that only the machines share (a private network of
# the provider, WireGuard). NAME outlives restarts of Ray and of the machine; default: its host name.

set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

role="${1:-}" own_ip="${2:-}"
case "$role:$#" in
head:2 | head:3) name="${3:-$(hostname)}" ;;
worker:3) name="$(hostname)" head_ip="$3" ;;
worker:4) name="$3" head_ip="$4" ;;
*) usage ;;
esac

export PATH="$PWD/.venv/bin:$PATH"
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
export RAY_memory_monitor_refresh_ms=0 # the kernel kills the rank that is large, not the small agent
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
ulimit -Sn 65536 2>/dev/null || ulimit -Sn "$(ulimit -Hn)" # a connection for each lease
token="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"

# Fixed ports, so that a firewall can open them to the other machines and to nobody else: Ray listens
# on every address of the machine, not on OWN_IP alone.
common=(
  --node-ip-address="$own_ip"
  --node-manager-port=6700
  --object-manager-port=6701
  --dashboard-agent-listen-port=6702
  --dashboard-agent-grpc-port=6703
  --runtime-env-agent-port=6704
  --metrics-export-port=6705
  --min-worker-port=10100
  --max-worker-port=10999
  --object-store-memory=1073741824
  --labels="activation-sweep-node=$name"
  --disable-usage-stats
)

if [ "$role" = head ]; then
  ray get-auth-token --generate >/dev/null
  ray start --head --port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 "${common[@]}"
  echo
  echo "Copy $token to every other machine (scp, mode 600), then type there:"
  echo "  configs/clusters/node.sh worker ITS_IP $own_ip"
  echo "and here, once \`ray status\` shows them:"
  echo "  RAY_AUTH_MODE=token RAY_ADDRESS=$own_ip:6379 make doctor sweep SWEEP=slopes"
else
  if [ ! -s "$token" ]; then
    echo "error: $token is not there: copy it from the head, or name another file with" \
      "RAY_AUTH_TOKEN_PATH=." >&2
    exit 2
  fi
  ray start --address="$head_ip:6379" "${common[@]}"
fi
