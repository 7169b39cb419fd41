#!/usr/bin/env bash
# Start one process per rank on all nodes of this Slurm job, or on this machine where there is none:
#   ranks.sh NODES TASKS_PER_NODE CPUS_PER_TASK COMMAND...
# For commands that find out their rank from the environment that srun or torchrun make, as `promptecho train` does.
set -euo pipefail
nodes=$1 tasks=$2 cpus=$3
shift 3
wanted="$nodes node(s) x $tasks process(es)"

fail() {
    echo "ranks.sh: $wanted: $1" >&2
    exit 1
}
if [ -z "${SLURM_JOB_ID:-}" ] && [ "$nodes" = 1 ]; then
    exec python -m promptecho.cluster.ranks "$tasks" "$cpus" "$@" # a workstation
fi
[ -n "${SLURM_JOB_ID:-}" ] || fail "there is no Slurm job here; run this rule with an executor that submits it to \
Slurm, or leave its resource nodes at 1"
# A step inside a step would wait for processors that the outer step holds: for ever.
[ -z "${SLURM_STEP_NUM_TASKS:-}" ] || [ "${SLURM_STEP_ID:-0}" -ge 4294967280 ] || fail "the rule runs inside a step of \
srun already; with \`--executor slurm\` set its resource mpi=srun too"

# --kill-on-bad-exit: without one rank, the others would wait for it.
# --export=ALL: also where the job was submitted with --export=NONE, which srun would pass on.
exec srun --kill-on-bad-exit=1 --export=ALL --nodes="$nodes" --ntasks=$((nodes * tasks)) --ntasks-per-node="$tasks" \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-$cpus}" "$@"
