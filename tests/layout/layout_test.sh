#!/usr/bin/env bash
# The house rules that a script can guard: the dependency rule, form, banned functions, file and function size, the demo
# model's size. Each check prints a sentence per finding. usage: layout_test.sh CHECK
set -euo pipefail
cd "$(dirname "$0")/../.."

c_files() { git ls-files --cached --others --exclude-standard -- "$@" | grep -E '\.(c|h|cu)$' || true; }

# Prints what it is given; fails when that is something.
none() { local found; found=$(cat); [ -z "$found" ] || { printf '%s\n' "$found"; return 1; }; }

# Lines of git grep in which PATH is not the end of a longer one: a clone may be at /reelkv.
whole_paths() { # PATH
    awk -v path="$1" '{
        line = $0
        sub(/^[^:]*:[0-9]*:/, "", line)
        while ((at = index(line, path)) > 0) {
            if (at == 1 || substr(line, at - 1, 1) !~ /[[:alnum:]_.}\/-]/) { print; break }
            line = substr(line, at + length(path))
        }
    }'
}

case ${1:?usage: layout_test.sh includes|selftest|format|banned|sizes|words|model} in
includes) # arrows point down; a vendor's header appears in one folder, a library's inner header in none but its own
    c_files lib services cli bench | xargs -r awk -f tests/layout/layout.awk
    ;;
format) # clang-format finds nothing to change
    c_files . | xargs -r clang-format --dry-run --Werror
    ;;
banned) # functions with a safer sibling in lib/base or libc
    { c_files lib services cli bench tools tests | xargs -r grep -nE \
        '(^|[^[:alnum:]_>.])(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atof|gets|alloca|rand|srand|system)\(' \
        /dev/null || true; } | none
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
    { git grep --untracked -nIE '\b(TODO|FIXME|XXX|HACK)\b' -- . ':!tests/layout/layout_test.sh' ||
        git grep --untracked -nIF "$PWD/" -- . | whole_paths "$PWD/" || true; } | none
    ;;
model) # the demo model is small enough for every clone
    bytes=$(git ls-files -z --cached --others --exclude-standard -- models/reelkv-demo | xargs -0r cat | wc -c)
    [ "$bytes" -le 8000000 ] || { echo "models/reelkv-demo has $bytes bytes, not at most 8000000"; exit 1; }
    ;;
selftest) # every check can fail: a tree with one sin of each kind, and what is said of it
    scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/services/kvstore" "$scratch/services/qa" "$scratch/lib/base" "$scratch/tests"
    cp -r tests/layout "$scratch/tests/"; cp .clang-format "$scratch/"; git -C "$scratch" init -q
    expect() { # CHECK SENTENCE
        local said
        if said=$(bash "$scratch/tests/layout/layout_test.sh" "$1" 2>&1); then
            echo "the $1 check lets '$2' pass"; exit 1
        fi
        grep -qF "$2" <<<"$said" || { echo "the $1 check does not say '$2' but: $said"; exit 1; }
    }
    echo '#include "qa/answer.h"' >"$scratch/services/kvstore/k.c"
    expect includes 'services/kvstore/k.c:1: services/* may not include qa/answer.h'
    echo '#include <uv.h>' >"$scratch/lib/base/b.c"
    expect includes 'lib/base/b.c:1: lib/base may not include uv.h'
    echo '#include "rpc/rpc_internal.h"' >"$scratch/services/qa/q.c"
    expect includes 'services/qa/q.c:1: services/* may not include rpc/rpc_internal.h'
    printf 'int  f( void );\n' >"$scratch/lib/base/form.c"
    expect format 'lib/base/form.c:1:'
    printf 'int f(char *to)\n{\n    return sprintf(to, "x");\n}\n' >"$scratch/lib/base/banned.c"
    expect banned 'lib/base/banned.c:3:'
    { echo 'int g(void)'; echo '{'; for i in {1..71}; do echo '    ;'; done; echo '}'; } >"$scratch/lib/base/long.c"
    expect sizes 'lib/base/long.c:2: function of 71 lines'
    for i in {1..801}; do echo; done >"$scratch/lib/base/tall.h"
    expect sizes 'lib/base/tall.h has more than 800 lines'
    mkdir -p "$scratch/models/reelkv-demo"; head -c 8000001 /dev/zero >"$scratch/models/reelkv-demo/weights"
    expect model 'models/reelkv-demo has 8000001 bytes'
    echo "see $scratch/notes" >"$scratch/path.md"
    expect words 'path.md:1:'
    echo 'TO''DO later' >"$scratch/later.md"
    expect words 'later.md:1:'
    ;;
esac
