#!/usr/bin/env bash
# The house rules that a script can guard: the dependency rule, form, banned functions, file and function size.
# Each check prints a sentence per finding. usage: layout_test.sh CHECK
set -euo pipefail
cd "$(dirname "$0")/../.."
shopt -s globstar nullglob

c_files() { git ls-files --cached --others --exclude-standard -- "$@" | grep -E '\.(c|h|cu)$' || true; }

case ${1:?usage: layout_test.sh includes|format|banned|sizes|words} in
includes) # arrows point down; a vendor's header appears in one folder
    c_files lib services cli bench | xargs -r awk -f tests/layout/layout.awk
    ;;
selftest) # the includes check can fail: a service that reaches into another, a vendor header out of place
    scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/services/kvstore" "$scratch/lib/base"
    echo '#include "qa/answer.h"' >"$scratch/services/kvstore/k.c"
    echo '#include <uv.h>' >"$scratch/lib/base/b.c"
    rules=$PWD/tests/layout/layout.awk
    found=$(cd "$scratch" && awk -f "$rules" services/kvstore/k.c lib/base/b.c || true)
    grep -qF 'services/kvstore/k.c:1: services/* may not include qa/answer.h' <<<"$found"
    grep -qF 'lib/base/b.c:1: lib/base may not include uv.h' <<<"$found"
    ;;
format) # clang-format finds nothing to change
    c_files . | xargs -r clang-format --dry-run --Werror
    ;;
banned) # functions with a safer sibling in lib/base or libc
    ! c_files lib services cli bench tools tests | xargs -r grep -nE \
        '(^|[^[:alnum:]_>.])(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atof|gets|alloca|rand|srand|system)\(' /dev/null
    ;;
sizes) # files end at 800 lines, functions at 70
    c_files lib services cli bench tools tests | xargs -r awk '
        FNR == 1 { start = 0 }
        FNR > 800 && !told[FILENAME]++ { printf "%s has more than 800 lines\n", FILENAME; bad = 1 }
        /^\{/ { start = FNR }
        /^\}/ && start { if (FNR - start - 1 > 70) { printf "%s:%d: function of %d lines\n", FILENAME, start, FNR - start - 1; bad = 1 } start = 0 }
        END { exit bad }'
    ;;
words) # nothing unfinished, no path of a developer machine
    ! git grep -nIE '\b(TODO|FIXME|XXX|HACK)\b' -- . ':!tests/layout/layout_test.sh'
    ! git grep -nIF "$PWD/" -- .
    ;;
esac
