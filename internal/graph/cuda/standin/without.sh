#!/bin/sh
# without.sh FILE N TEXT [REPLACEMENT] prints FILE with TEXT, where it occurs for the Nth time, replaced, by default by
# nothing. It fails where there is no such TEXT.
set -eu
awk -v n="$2" -v text="$3" -v replacement="${4:-;}" '{
  at = index($0, text)
  if (at && ++seen == n) {
    $0 = substr($0, 1, at - 1) replacement substr($0, at + length(text))
    done = 1
  }
  print
}
END {
  if (!done) {
    exit 1
  }
}' "$1"
