#!/usr/bin/env bash
# The rows of the paper's Table II with our loss weights and with the paper's, on plans with four feature banks, three
# trainings each of 280 steps; docs/paper_tables.md shows what came out.
#
#     benchmarks/table_two.sh OUT [arguments of d2net benchmark, such as -device cpu --jobs 2]
#
# The same command goes on where it was stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cd "$1"
shift
export nnUNet_raw=$PWD/raw nnUNet_preprocessed=$PWD/preprocessed nnUNet_results=$PWD/results
nnUNet_extTrainer=$here/short_trainers:$(d2net trainers)
export nnUNet_extTrainer nnUNet_compile=f nnUNet_n_proc_DA=0
plans=$nnUNet_preprocessed/Dataset930_GliomaPhantom/FourBanksPlans.json
if [ ! -f "$plans" ]; then
    d2net phantom -d 930 --train 36 --test 12 --size small --seed 0
    d2net plan_and_preprocess -d 930 -pl D2NetSmallPlanner -c 3d_fullres
    python3 "$here/four_banks.py" "${plans/FourBanks/D2NetSmall}"
fi
rows=(NoSFMCNoKD OnlySC OnlyFC NoKD OnlyKDFeature OnlyKDLogit NoSFMC All)
for seed in 0 1 2; do
    nnUNet_results=$PWD/results_$seed d2net benchmark -d 930 -c 3d_fullres -p FourBanksPlans -f 0 --disable_tta --no_cost \
        --seed "$seed" -o "bench_$seed" --arms "${rows[@]/#/Ours}" "${rows[@]/#/Paper}" "$@"
done
d2net repeats bench_0 bench_1 bench_2 --against OursNoSFMCNoKD
d2net repeats bench_0 bench_1 bench_2 --against PaperNoSFMCNoKD
