#!/usr/bin/env bash
# On a machine with a GPU and torch, but perhaps without Snakemake: every table that is trained, its cases as ensembles,
# and the whole runs, all at once. `python -m studies merge TABLE` adds what $RUNS then holds to the tables.
#
#   RUNS=runs/studies TABLES=results/experiments bash studies/on_gpu.sh
#
# Continued where it was stopped. Logs lie beside the parts.
set -uo pipefail
cd "$(dirname "$0")/.."
RUNS=${RUNS:-runs/studies} TABLES=${TABLES:-results/experiments} PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
mkdir -p "$RUNS"

parts() {  # names of a table's parts that match a pattern
  "$PYTHON" -c 'import re, sys; from studies.catalogue import study_of
print(*filter(re.compile(sys.argv[2]).search, study_of(sys.argv[1]).parts))' "$1" "$2"
}

part() {  # device, table, parts
  local device=$1 table=$2
  shift 2
  "$PYTHON" -m studies part "$table" "$@" --device "$device" --tables "$TABLES" --runs "$RUNS" \
    >> "$RUNS/$table-$1.log" 2>&1 && echo "$(date +%T) $table $1: made" || echo "$(date +%T) $table $1: failed"
}

whole() {  # a setting of whole_runs.yaml
  local given seeds
  given=$("$PYTHON" -c 'import json, sys, yaml
print(json.dumps(yaml.safe_load(open("studies/whole_runs.yaml"))["settings"][sys.argv[1]] | {"device": "cuda"}))' "$1")
  seeds=$("$PYTHON" -c 'import yaml; from studies import choices
print(*choices.seeds(yaml.safe_load(open("studies/whole_runs.yaml"))["seeds"]))')
  "$PYTHON" -m studies together "$1" $seeds --parameters "$given" --runs "$RUNS" >> "$RUNS/$1.log" 2>&1
  echo "$(date +%T) $1: trained"
  printf '%s\n' $seeds | xargs -P4 -I{} "$PYTHON" -m studies summary "$1" {} --runs "$RUNS" \
    --output "$RUNS/sweep/$1/seed{}.json" >> "$RUNS/$1.log" 2>&1
  echo "$(date +%T) $1: summarised"
}

every_step='every-step'
part cuda nudges all &
part cuda readings $(parts readings "^(?!.*$every_step)") &
part cuda readings $(parts readings "$every_step") &
part cuda mechanisms all &
part cuda phases all &
{ part cuda coupling all; part cuda commons all; } &
{ part cuda rate all; part cuda stability all; } &
{ for setting in split split-pairs latent-2 latent-4 latent-8 latent-32; do whole "$setting"; done; } &
for name in $(parts singles .); do part cpu singles "$name" & done
wait
echo "$(date +%T) all done"
