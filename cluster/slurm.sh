#!/usr/bin/env bash
# A dytrack command on the nodes of one Slurm job:
#
#   sbatch --nodes=2 cluster/slurm.sh train base-full --set train.workers=16
#
# A Ray of the job's own is started on every node, and the command runs on the first. Ports follow
# from the job's number, files of Ray lie in a folder of the job, and only this job's processes hold
# its token, so that jobs that share a node do not meet. The script ends as the command ended; where
# the cluster did not come up, it ends with 70, whatever Ray says.
#
#SBATCH --job-name=dytrack
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=96
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

FAILED=70 # of sysexits.h: an error inside, as opposed to the command's own codes
WAIT_S=${DYTRACK_SLURM_WAIT_S:-300}
job=${SLURM_JOB_ID:?start this script with sbatch}
nodes=${SLURM_JOB_NUM_NODES:?start this script with sbatch}
if [ "$#" -eq 0 ]; then
    echo "slurm.sh: no command; give one, as in: sbatch slurm.sh train RECIPE" >&2
    exit 2
fi

# Above the ports that Ray gives its workers (10002 to 19999), below those that the kernel gives away
# (32768 and more).
port=$((20000 + job % 600 * 20))
# Short: paths of sockets may have 107 characters.
folder=/tmp/dyt-$job
# On the home folder, which all nodes share.
shared=${DYTRACK_SLURM_FOLDER:-$HOME/.dytrack/slurm}/$job
umask 077
mkdir -p "$shared"
rm -f "$shared/started"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$shared/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$shared/token"
export RAY_USAGE_STATS_ENABLED=0
# Another Ray of this user may have left these.
unset RAY_ADDRESS RAY_AUTH_TOKEN

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts[0]:?scontrol names no node}
on_first=(srun --overlap --nodes=1 --ntasks=1 "--nodelist=$first")
read -r ip _ < <("${on_first[@]}" hostname --all-ip-addresses)
address=$ip:$port
common=(
    --block --disable-usage-stats "--num-cpus=${SLURM_CPUS_PER_TASK:-1}" "--temp-dir=$folder"
    "--dashboard-agent-listen-port=$((port + 2))" "--dashboard-agent-grpc-port=$((port + 3))"
    "--runtime-env-agent-port=$((port + 4))" "--metrics-export-port=$((port + 5))"
    "--node-manager-port=$((port + 6))" "--object-manager-port=$((port + 7))"
)

rays=()
command=
# shellcheck disable=SC2317,SC2329  # a trap calls it
end() {
    code=$?
    trap - EXIT TERM INT
    # Only what was started here: "ray stop" would end every Ray of this user on these nodes.
    for one in $command "${rays[@]}"; do
        kill -TERM "$one" 2>/dev/null || true
    done
    for one in $command "${rays[@]}"; do
        wait "$one" 2>/dev/null || true
    done
    srun --overlap "--nodes=$nodes" "--ntasks=$nodes" rm -rf "$folder" || true
    rm -rf "$shared"
    exit "$code"
}
trap end EXIT
# Slurm says two minutes before the end: the command hears it, and a training writes a checkpoint.
interrupted=
# shellcheck disable=SC2317,SC2329  # a trap calls it
told() {
    echo "slurm.sh: told to end"
    [ -n "$command" ] || exit 143
    interrupted=yes
    kill -TERM "$command" 2>/dev/null || true
}
trap told TERM INT

fail() {
    echo "slurm.sh: $1" >&2
    exit "$FAILED"
}

# Say whether every Ray that was started is still there.
alive() {
    local one
    for one in "${rays[@]}"; do
        kill -0 "$one" 2>/dev/null || return 1
    done
}

# Wait until the cluster has so many nodes.
wait_for() {
    local deadline=$((SECONDS + WAIT_S)) found=0
    while [ "$found" -lt "$1" ]; do
        alive || fail "ray start failed on a node; its message stands above"
        [ "$SECONDS" -lt "$deadline" ] || fail "$found of $1 nodes came up within $WAIT_S s"
        sleep 1
        found=$("${on_first[@]}" python -c 'import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))' "$address" 2>/dev/null | tail -n 1) || found=0
        case $found in '' | *[!0-9]*) found=0 ;; esac
    done
}

"${on_first[@]}" ray start --head "--node-ip-address=$ip" "--port=$port" \
    --dashboard-host=127.0.0.1 "--dashboard-port=$((port + 1))" \
    "--ray-client-server-port=$((port + 8))" "${common[@]}" &
rays+=("$!")
wait_for 1
if [ "$nodes" -gt 1 ]; then
    srun --overlap "--nodes=$((nodes - 1))" "--ntasks=$((nodes - 1))" "--exclude=$first" \
        ray start "--address=$address" "${common[@]}" &
    rays+=("$!")
    wait_for "$nodes"
fi

echo "slurm.sh: $nodes nodes at $address; dytrack $*"
# The mark says that the command was really begun: without it, no code is believed.
# shellcheck disable=SC2016  # the inner shell expands it
RAY_ADDRESS=$address "${on_first[@]}" sh -c 'touch "$0" && exec dytrack "$@"' "$shared/started" "$@" &
command=$!
while :; do
    interrupted=
    code=0
    wait "$command" || code=$?
    [ -n "$interrupted" ] || break # a signal ends the wait, not the command
done
command=
[ -e "$shared/started" ] || fail "the command never started (srun ended with $code)"
echo "slurm.sh: the command ended with $code"
exit "$code"
