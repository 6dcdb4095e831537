#!/usr/bin/env bash
# All that needs a GPU: tests of the kernels, profiles of losses, steps and views, plots, the page.
#
#   scripts/gpu.sh                 everything
#   scripts/gpu.sh PIECE ...       some of it; a piece takes minutes, so that it fits a short loan
#
# A piece that fails does not keep the next from running; the exit status says whether one did. A
# profile that was cut off goes on when it is run again. LIMIT is in seconds, for each command
# (default: none); BIN is the folder of `python` and `bench` (default: .venv/bin if it is there).
set -uo pipefail
cd "$(dirname "$0")/.."

PIECES=(tests contrastive queue prototypes others step peer data board)
BIN=${BIN-$([ -d .venv/bin ] && echo .venv/bin)}
PATH=${BIN:+$PWD/$BIN:}$PATH
failed=()

try() {
    echo "== $*" >&2
    timeout --signal=INT "${LIMIT:-0}" "$@" || failed+=("$* (status $?)")
}

losses() {
    local op
    for op in "$@"; do try bench profile losses --device cuda --op "$op"; done
}

piece() {
    case $1 in
        tests)
            try python -m pytest -m gpu
            # The others of the kernels too: here they run on the GPU, uninterpreted.
            try python -m pytest -m "not gpu and not slow" tests/kernels -n 4
            ;;
        contrastive) losses ntxent infonce siglip ;;
        queue) losses queue_infonce nce_bank ;;
        prototypes) losses dino ibot sinkhorn ;;
        others) losses barlow_twins covariance_penalty color_ce ema_update knn_topk ;;
        step) try bench profile step --device cuda --all ;;
        peer)
            for compile in --no-compile --compile; do
                try bench profile step --device cuda --vs lightly "$compile" \
                    -m simclr -m byol -m simsiam -m barlow_twins -m vicreg \
                    --backbone resnet50 --batch-size 512
            done
            ;;
        data) for size in 32 224; do try bench profile data --device cuda --size "$size"; done ;;
        board) try bench leaderboard ;;
        *)
            echo "no piece called '$1'; known: ${PIECES[*]}" >&2
            exit 2
            ;;
    esac
}

for name in "${@:-${PIECES[@]}}"; do piece "$name"; done
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
