#!/usr/bin/env bash
# The kernels' tests under Valgrind: reads and writes outside of a buffer, decisions by values that were never written,
# lost memory. Needs Debian's package `valgrind`; minutes.
#
#     scripts/valgrind.sh             all tests
#     scripts/valgrind.sh property    those whose name has the word
#
# Valgrind's processor has no AVX-512, so AVX2 and portable kernels are run; AVX-512 has the same loops over other vectors.
set -euo pipefail
cd "$(dirname "$0")/.."

# Threads take turns under Valgrind; two are enough to let blocks meet.
export RAYON_NUM_THREADS=2

# The whole workspace, as everywhere, so that the tensor library is not compiled once more with other features.
program=$(cargo test --release --workspace --lib --no-run 2>&1 | tee /dev/stderr |
    sed -n 's|.*(\(.*/dcformer_kernels-[0-9a-f]*\)).*|\1|p')
[ -x "$program" ] || { echo "the kernels' tests were not built" >&2; exit 1; }

passed=0
failed=()
for test in $("$program" --list "${@:-}" 2>/dev/null | sed -n 's/: test$//p'); do
    started=$SECONDS
    if valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite \
        "$program" --exact "$test" --test-threads=1 > /dev/null; then
        passed=$((passed + 1))
        echo "$test: no error, $((SECONDS - started)) s"
    else
        failed+=("$test")
        echo "$test: FAILED"
    fi
done
printf '%s passed, %s failed\n' "$passed" "${#failed[@]}"
[ "$passed" -gt 0 ] && [ "${#failed[@]}" -eq 0 ]
