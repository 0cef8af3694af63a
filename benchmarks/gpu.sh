#!/usr/bin/env bash
# What is to be checked on a machine with an NVIDIA card, in parts of at most four minutes each, what matters most first.
#
#   benchmarks/gpu.sh              all parts that have not ended well yet, in order, then a summary
#   benchmarks/gpu.sh PART...      these, whether they did or not
#   benchmarks/gpu.sh list         the parts, what each is expected to take, with all before it, and how it ended
#
# State, logs and figures are kept in .bench/gpu; where OUT is set, the summary and an archive of the rest are put there
# too, after each part. The first part makes an environment in .bench/gpu/venv around the torch that python3 has, or
# with one from the package index; with a folder wheels/ beside launch.py it asks no index.
#
# What may be set, and what it is otherwise: PYTHON=python3 DEVICE=cuda LIMIT_S=240 WORKERS=8 BUDGET_S= (seconds: no part is
# begun that is not expected to end within them) QUICK= (any text: a smaller trial). A slow line to the index may want
# LIMIT_S=1800 benchmarks/gpu.sh install. With DEVICE=cpu QUICK=1 every part runs without a card: small pictures, small
# models in the place of large ones, a stand-in for CUDA's recorder.
#
# The numbers behind the parts are the seconds that each is expected to take on one H200 with 16 cores. They are estimates:
# no part was run on a card yet. All were with DEVICE=cpu QUICK=1 WORKERS=1 and one thread, on a CPU with AVX2 alone. There
# the processor is busy for 10 to 25 s with each exact-*, 30 to 40 s with a speed-* or compiled-*, 70 to 80 s with
# speed-lora*, 20 s with suite-cuda, which only looks for its tests, and 45 to 120 s with another suite-*. What draws with
# --compile takes a minute more the first time; on a busy machine that needs a larger LIMIT_S.
#
# To add a part: write a function part_NAME, with - as _ in its name, and put NAME and seconds where it is to run.
# It ends well if its last command does; "$python" is the environment's, and figures go into "$results".
# shellcheck disable=SC2329  # parts are called by their names
set -euo pipefail

EXPECTED=(
    install 40
    exact-float16 80 # the format that a card draws in, with and without graphs
    suite-cuda 35    # what only a card can show
    sd15 25 speed-sd15 60
    sdxl 60 speed-sdxl 75
    suite-loras 50 speed-lora 60 speed-lora-sd15 70
    suite-samplers 50 suite-pictures 45
    exact-float32 80
    speed-txt2img 40
    # until here it fits 15 minutes, 100 s of which are the machine's start
    suite-compiled 120 # ours beside the plain network, as it lies on a card
    suite-together 40 speed-together 40 speed-together-sd15 60
    compiled-sd15 110 compiled-sdxl 180 # diffusers compiled, which takes minutes before it draws
    suite-controls 60 suite-families 45 suite-small-weights 60 suite-approximations 30
    exact-bfloat16 80
    speed-img2img 40 speed-inpaint 40 speed-previews 30
    compiled-demo 150 # ours too
)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
keep=${KEEP:-$root/.bench/gpu}
results=$keep/results
venv=$keep/venv
base=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
LIMIT_S=${LIMIT_S:-240}
QUICK=${QUICK:-}
workers=${WORKERS:-8}
BUDGET_S=${BUDGET_S:-}
NOTHING_RAN=77 # the status of a part that has nothing to do on this device
# what stands for large models without a card, and compiled programs, which the CPU has at the demo model's size
usual=demo xl=sdxl-small compiled=()
[ "$DEVICE" != cuda ] || usual=sd15 xl=sdxl compiled=(--compiled)
declare -A expected_s
PARTS=()
for ((k = 0; k < ${#EXPECTED[@]}; k += 2)); do
    expected_s[${EXPECTED[k]}]=${EXPECTED[k + 1]}
    PARTS+=("${EXPECTED[k]}")
done
python=$base
[ ! -x "$venv/bin/python" ] || python=$venv/bin/python
export PYTHONPATH=$root PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

part_install() {
    local from=()
    [ ! -d "$root/wheels" ] || from=(--no-index --find-links "$root/wheels")
    if "$base" -c "import sys, torch; sys.exit('$DEVICE' == 'cuda' and not torch.cuda.is_available())"; then
        # a .pth file and not --system-site-packages, which shows nothing where python3 is of an environment itself
        "$base" -m venv --clear --without-pip "$venv"
        "$base" -c 'import sys; print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")' \
            >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/found.pth"
    else
        "$base" -m venv --clear "$venv"
    fi
    python=$venv/bin/python
    "$python" -m benchmarks.needed "$keep"
    "$python" -m pip install --quiet --disable-pip-version-check "${from[@]}" \
        --constraint "$keep/constraints.txt" --requirement "$keep/requirements.txt"
    "$python" -c "import sys, torch; from benchmarks.measure import machine; print(machine()); \
sys.exit('$DEVICE' == 'cuda' and not torch.cuda.is_available())"
}

part_exact_float32() { exact float32; }
part_exact_float16() { exact float16; }
part_exact_bfloat16() { exact bfloat16; }
exact() {
    "$python" -m benchmarks.exactness --device "$DEVICE" --dtype "$1" ${QUICK:+--quick} --json "$results/exact-$1.json"
}

part_suite_cuda() {
    local files
    mapfile -t files < <(grep -rl --include="*.py" "mark\.cuda" tests/engine) # all of them would be imported for nothing
    suite -m cuda "${files[@]}"
    [ "$DEVICE" = cuda ] || { echo "nothing was drawn: all of it needs an NVIDIA card" && exit "$NOTHING_RAN"; }
}
part_suite_compiled() { suite -m slow -k same_unet tests/engine/speed/test_compiled.py; }
part_suite_loras() { suite tests/engine/speed/test_graphed.py tests/engine/test_loras.py tests/engine/test_schedules.py; }
part_suite_samplers() { suite tests/engine/test_denoise.py tests/engine/test_exactness.py; }
part_suite_pictures() {
    suite tests/engine/test_start_pictures.py tests/engine/test_stock_start_pictures.py tests/engine/test_guidance.py \
        tests/engine/test_soft_inpainting.py
}
part_suite_controls() { suite tests/engine/controls; }
part_suite_approximations() { suite tests/engine/test_approximations.py; }
part_suite_families() { suite tests/engine/families/test_parity.py; }
part_suite_small_weights() { suite tests/engine/families/test_small_weights.py tests/engine/families/test_small_anima.py; }
part_suite_together() { suite tests/jobs/test_joining.py tests/engine/test_together.py; }
suite() {
    "$python" -m pytest -p no:cacheprovider -n "$workers" --device "$DEVICE" --tb short -rfE "$@"
}

part_speed_txt2img() { speed txt2img; }
part_speed_img2img() { speed img2img; }
part_speed_inpaint() { speed inpaint; }
part_speed_previews() { speed previews; }
part_speed_together() { speed together --rounds 3; }
part_speed_together_sd15() { speed together --size "$usual" --rounds 3; }
part_speed_lora() { speed lora --rounds 3; } # pictures that alternate two sets, a weight that changes in mid-picture
part_speed_lora_sd15() { speed lora --size "$usual" --side 512 --steps 20 --rounds 3; }
part_speed_sd15() { speed txt2img --size "$usual" --side 512 --steps 20 --rounds 3; }
part_speed_sdxl() { speed txt2img --size "$xl" --side 1024 --steps 20 --rounds 3; }
part_compiled_demo() { speed txt2img "${compiled[@]}"; }
part_compiled_sd15() { speed txt2img --size "$usual" --side 512 --steps 20 --rounds 3 "${compiled[@]}"; }
part_compiled_sdxl() { speed txt2img --size "$xl" --side 1024 --steps 20 --rounds 3 "${compiled[@]}"; }
speed() {
    "$python" -m benchmarks "$@" --device "$DEVICE" ${QUICK:+--rounds 1 --steps 3 --side 64} --json "$results/$part.json"
}

# Models of usual sizes, with random weights, once; their conversion is the part's work, 2 and 7 GB in each of two forms.
part_sd15() { made "$usual"; }
part_sdxl() { made "$xl"; }
made() { "$python" -c "from benchmarks.peers.convert import of_size; print(of_size('$1').folder)"; }

state_of() { # how a part ended: "ok", "failed", "timed out" or "nothing ran", seconds, time and commit; nothing where it never ran
    [ ! -f "$keep/state/$1" ] || cat "$keep/state/$1"
}

list() {
    local name sum_s=0
    for name in "${PARTS[@]}"; do
        sum_s=$((sum_s + expected_s[$name]))
        printf '%-22s %4s s expected, %5s s with all before   %s\n' "$name" "${expected_s[$name]}" $sum_s "$(state_of "$name")"
    done
}

summary() {
    list
    local name
    for name in "${PARTS[@]}"; do
        [ ! -f "$keep/logs/$name.txt" ] || printf '\n== %s: %s\n%s\n' "$name" "$(state_of "$name")" "$(tail -n 60 "$keep/logs/$name.txt")"
    done
}

hand_out() { # two files, since a machine that is lent may give back few
    summary >"$keep/summary.txt"
    [ -n "${OUT:-}" ] || return 0
    mkdir -p "$OUT"
    cp "$keep/summary.txt" "$OUT/gpu-summary.txt"
    tar -czf "$OUT/gpu-results.tar.gz" -C "$keep" state logs results
}

run() { # one part, in a process of its own with a limit
    local name=$1 status=0 started=$SECONDS how=ok
    echo "== $name"
    timeout --kill-after=10 "$LIMIT_S" bash "${BASH_SOURCE[0]}" --part "$name" </dev/null >"$keep/logs/$name.txt" 2>&1 ||
        status=$?
    case $status in
        0) ;;
        "$NOTHING_RAN") how="nothing ran" && status=0 ;;
        124 | 137) how="timed out" ;;
        *) how="failed" ;;
    esac
    echo "$how, $((SECONDS - started)) s, $(date -u +%FT%TZ), $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo '?')" \
        >"$keep/state/$name"
    tail -n 15 "$keep/logs/$name.txt"
    state_of "$name"
    hand_out
    [ $status -eq 0 ]
}

is_part() {
    [[ " ${PARTS[*]} " == *" $1 "* ]] || { echo "gpu.sh: no part $1; there are: ${PARTS[*]}" >&2 && exit 2; }
}

cd "$root"
mkdir -p "$keep/state" "$keep/logs" "$results"
case "${1:-}" in
    list) list && exit ;;
    --part)
        part=$2
        "part_${part//-/_}"
        exit
        ;;
    "") chosen=() && for name in "${PARTS[@]}"; do [[ $(state_of "$name") == ok* ]] || chosen+=("$name"); done ;;
    *) chosen=("$@") && for name in "${chosen[@]}"; do is_part "$name"; done ;;
esac
bad=0
for name in "${chosen[@]}"; do
    if [ -n "$BUDGET_S" ] && ((SECONDS + expected_s[$name] > BUDGET_S)); then
        echo "== $name: not begun, for it is expected to take ${expected_s[$name]} s"
        continue
    fi
    run "$name" || { bad=1 && [ "$name" != install ] || exit 1; } # nothing else goes without it
done
echo
list
exit $bad
