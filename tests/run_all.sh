#!/usr/bin/env bash
# Run the tests that need no GPU, in four processes, and report on all of them.
#
#   tests/run_all.sh [cpu] [interpreter] [gate] [compile_gate]        (default: all four)
#
# Triton decides once per process, on import, whether kernels go to its interpreter or to its
# compiler, so the two need processes of their own; and so does the simulator of what it compiles
# (tests/simulator). PYTHON names the interpreter to use: .venv's,
# or else python3.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-}
if [[ -z $python ]]; then
    python=python3
    [[ -x .venv/bin/python ]] && python=.venv/bin/python
fi
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
summary=()
failed=0

run() { # NAME COMMAND...
    local name=$1 status
    shift
    echo "==> $name: $*"
    "$@" --durations=10 2>&1 | tee "$logs/$name"
    status=${PIPESTATUS[0]}
    summary+=("$(printf '%-12s  exit %d  %s' "$name" "$status" "$(tail -n 1 "$logs/$name")")")
    ((status == 0)) || failed=1
}

(($# > 0)) || set -- cpu interpreter gate compile_gate
for name in "$@"; do
    case $name in
    cpu)
        run cpu env -u TRITON_INTERPRET "$python" -m pytest tests --ignore tests/gate \
            --ignore tests/interpreter --ignore tests/compile_gate
        ;;
    interpreter) # one thread a worker: the arrays are small, and the workers fill the cores
        run interpreter env TRITON_INTERPRET=1 OMP_NUM_THREADS=1 \
            "$python" -m pytest tests/interpreter -n 2
        ;;
    gate) # compiled for Hopper and simulated; where nothing compiles C++, interpreted
        # Compiling takes the time: tiles in float16 are those in bfloat16 but for conversions.
        if command -v "${CXX:-c++}" >/dev/null; then
            run gate env -u TRITON_INTERPRET PIXELNET_TEST_DEVICE=cuda OMP_NUM_THREADS=1 \
                "$python" -m pytest -p tests.fake_cuda -p tests.simulator.plugin tests/gate -n 2 \
                -k "not (test_tiles and float16 and not bfloat16)"
        else
            run gate env TRITON_INTERPRET=1 OMP_NUM_THREADS=1 "$python" -m pytest tests/gate -n 2
        fi
        ;;
    compile_gate)
        run compile_gate env -u TRITON_INTERPRET "$python" -m pytest tests/compile_gate -n 2
        ;;
    *)
        echo "unknown part '$name': expected cpu, interpreter, gate or compile_gate" >&2
        exit 2
        ;;
    esac
done

echo "==> summary"
printf '%s\n' "${summary[@]}"
exit "$failed"
