#!/bin/sh
# validate.sh TOFU DIR MARKER FILE-OF-MIRROR MIRROR-ROOT: for tofu.bzl.
set -eu
tofu=$PWD/$1 marker=$PWD/$3
mirror=$PWD/${4%%"/$5/"*}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A copy: init writes beside the sources. Modules call each other by ../.
mkdir -p "$work/$(dirname "$2")"
cp -RL "$(dirname "$2")/." "$work/$(dirname "$2")"
case $2 in */stacks/*) cp -RL "$(dirname "$2")/../modules" "$work/$(dirname "$2")/../modules" ;; esac
printf 'provider_installation {\n  filesystem_mirror { path = "%s" }\n}\n' "$mirror" >"$work/rc"
export TF_CLI_CONFIG_FILE="$work/rc" CHECKPOINT_DISABLE=1 HOME="$work"
cd "$work/$2"
# OpenTofu finds a directory without sources valid.
ls ./*.tf >"$work/log" 2>&1 || { echo "$2 has no .tf files" >&2; exit 1; }
"$tofu" init -backend=false -input=false -no-color >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
"$tofu" validate -no-color >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
: >"$marker"
