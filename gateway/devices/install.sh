#!/bin/sh
# Makes this machine a device of the gateway that served this: takes the agent from there, checks it, and has it
# install itself. The line that runs this holds the SHA-256 of this text, and this text those of what it fetches.
# The one-time token comes on standard input; no argument and no file of this holds it. Run it again after any failure.
set -eu
umask 077

BUILT=@BUILT@
FILES='@FILES@'
NODE_MAJOR=@NODE_MAJOR@
NODE_MINOR=@NODE_MINOR@

fail() {
  printf 'sallyport: %s\n  next  %s\n' "$1" "$2" >&2
  exit "${3:-1}"
}

gateway= root=/ login= authority=
option() {
  case $1 in
    --gateway) gateway=$2 ;;
    --root) root=$2 ;;
    --proxy) export https_proxy="$2" ;;
    --proxy-auth-file) login=$2 ;;
    --proxy-ca-file) authority=$2 ;;
  esac
}
# As the agent reads them: `--name value` and `--name=value`.
previous=
for word in "$@"; do
  case $word in
    --*=*) option "${word%%=*}" "${word#*=}" && previous= ;;
    *) option "$previous" "$word" && previous=$word ;;
  esac
done
[ -n "$root" ] || fail 'an empty --root names no folder' 'leave it out, or name the folder of an image' 2
[ -n "$gateway" ] || fail 'no --gateway was given' 'run the line that `sallyport device add` printed' 2

# What can be seen of this machine before anything is fetched.
[ "$(uname -s)" = Linux ] || fail "this is $(uname -s), and the agent is for Linux" 'see docs/agent.md' 2
if [ "$root" = / ]; then
  [ "$(id -u)" = 0 ] || fail 'a service is installed by root, and this is another user' 'run it as root' 2
  [ -d /run/systemd/system ] ||
    fail 'this machine is not run by systemd' 'enrol by hand: docs/agent.md "Bringing a device online"' 2
fi
for program in mktemp sha256sum; do
  command -v "$program" >/dev/null || fail "there is no $program" "install $program" 2
done
if [ "$(date +%s)" -lt "$BUILT" ]; then
  echo '- the clock of this machine is behind; the agent takes the time from the gateway' >&2
fi
case $(uname -m) in
  x86_64 | amd64) arch=x64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) arch=none ;;
esac

# Whether a file, and every folder above it, is for everybody: `x` or `t` is the last of its ten letters.
everybody_runs() {
  path=$(readlink -f "$1")
  while [ -n "$path" ]; do
    case $(ls -ld "$path") in ?????????[xt]*) ;; *) return 1 ;; esac
    path=${path%/*}
  done
}

# A Node that the service's own user can run as well.
node_here() {
  node=$(command -v node) || return 1
  everybody_runs "$node" || return 1
  "$node" -e "const [a, b] = process.versions.node.split('.').map(Number)
    process.exit(a > $NODE_MAJOR || (a === $NODE_MAJOR && b >= $NODE_MINOR) ? 0 : 1)" 2>/dev/null </dev/null
}

has() { case $FILES in *" $1="*) return 0 ;; *) return 1 ;; esac; }

if node_here && has sallyport-agent.cjs; then
  name=sallyport-agent.cjs
elif has "sallyport-agent-$arch"; then
  name=sallyport-agent-$arch
elif has sallyport-agent.cjs; then
  fail "this machine ($(uname -m)) has no Node $NODE_MAJOR.$NODE_MINOR that every user can run, and the gateway no executable for it" \
    'install Node, or have `npm run build:agent -- --sea` run for this architecture and its result beside the gateway'
else
  fail "the gateway has no agent for $(uname -m)" 'have `npm run build:agent` run beside the gateway'
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# As a setting of curl: an argument would show the password to every user.
proxy_login() {
  [ -z "$login" ] || printf 'proxy-user = "%s"\n' "$(sed 's/[\\"]/\\&/g' "$login")"
  [ -z "$authority" ] || printf 'proxy-cacert = "%s"\n' "$(printf %s "$authority" | sed 's/[\\"]/\\&/g')"
}

# One try. The certificate of the gateway is not looked at here: what comes is taken by its hash or not at all.
take() {
  if command -v curl >/dev/null; then
    status=$(proxy_login | curl -K - -fsSk --proto =https --connect-timeout 15 -w '%{http_code}' -o "$folder/$1" "$gateway/agent/$1")
  else
    wget --no-check-certificate -T 30 -O "$folder/$1" "$gateway/agent/$1" </dev/null 2>"$folder/said" && return 0
    case $(cat "$folder/said") in
      *' 503 '* | *' 503:'*) status=503 ;;
      *) tail -n 1 "$folder/said" >&2 ;;
    esac
    return 1
  fi
}

# A gateway that serves others is asked again for some minutes, each machine at its own times.
fetch() {
  tries=0
  while :; do
    status=
    take "$1" && return 0
    tries=$((tries + 1))
    if [ "$status" = 503 ]; then
      [ "$tries" -lt 30 ] ||
        fail "$gateway has been serving other machines all the time" 'nothing was installed; run the same line again later'
      [ "$tries" -gt 1 ] || echo '- the gateway is serving other machines; trying again for some minutes' >&2
      sleep $((5 + ($$ + tries * 7) % 11))
    else
      [ "$tries" -lt 4 ] ||
        fail "$gateway/agent/$1 could not be fetched" 'check the name, the network and the proxy of this machine'
      sleep "$tries"
    fi
  done
}

# Its licences go with the agent.
for one in "$name" THIRD-PARTY.txt NODE-LICENSE.txt; do
  has "$one" || continue
  fetch "$one"
  rest=${FILES#*" $one="}
  printf '%s  %s\n' "${rest%% *}" "$folder/$one" | sha256sum -c - >/dev/null 2>&1 ||
    fail "what came from $gateway as $one is not what the gateway promised" \
      'nothing was installed; make a new line with `sallyport device token`; if it happens again, somebody is in between'
done
echo "- $name is what the gateway promised" >&2

case $name in
  *.cjs) "$node" "$folder/$name" install --token-stdin "$@" ;;
  *)
    chmod 0755 "$folder/$name"
    "$folder/$name" install --token-stdin "$@"
    ;;
esac
