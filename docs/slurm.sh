#!/bin/bash
# sbatch docs/slurm.sh    The pipeline on two nodes of eight GPUs; edit the first lines.
#SBATCH --job-name=pagoda
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue

# DVC runs once, on the first node; every stage that can starts itself through srun on all nodes.
# Two minutes before the limit the stage in hand saves a checkpoint; a requeued job goes on from it.
export PAGODA_PROCESSES=8  # a node
source .venv/bin/activate
dvc repro & pipeline=$!
trap 'pkill -TERM -P "$pipeline"; wait "$pipeline"; scontrol requeue "$SLURM_JOB_ID"' TERM
wait "$pipeline"
