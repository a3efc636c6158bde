#!/usr/bin/env bash
# Trains on a Google Cloud TPU VM, through preemptions: `usage` below has what
# it does, docs/launch.md how to begin. Runs on bash 3.2 (macOS) and later.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)

usage() {
  cat <<'END'
Trains on a Google Cloud TPU VM: requests the slice, waits, sends the code of a
commit, installs, starts the trainer on every worker, follows its log, and makes
the slice anew when it is preempted, until the run is finished. Then it fetches
what would be lost and deletes the slice.

  bash launch/tpu.sh run --name NAME --zone ZONE --type TYPE [options] -- \
      --config CONFIG --workdir gs://BUCKET/runs/NAME [arguments of vdm.main]

Interrupted, the trainer goes on; the same command follows it again. Other
commands, each with --name NAME --zone ZONE:

  status  the state of the slice and of the trainer on each worker
  logs    a worker's log so far               [--worker N]
  ssh     a shell on a worker, or a command   [--worker N|all] [-- COMMAND]
  fetch   copies a run's folder from worker 0 [--to FOLDER] -- WORKDIR
  stop    asks the run to save and stop; the slice stays
  delete  deletes the slice

Options of run:
  --type TYPE     v5litepod-8, v6e-8, v5p-8, v4-8, ...: v2 to v6e, one slice
  --spot          at the price, and with the preemptions, of spot capacity
  --commit REF    the commit to run; by default HEAD, if nothing is uncommitted
  --before CMD    a shell command for every worker, in the code's folder, before
                  each start, such as copying data
  --env NAME      sends this variable of your environment; may be repeated
  --keep          does not delete the slice at the end
  --retries N     stops after N failures of the program in a row (3)
  --to FOLDER     where a run that is not in a bucket is fetched to
                  (runs/tpu/NAME, which has the logs too)
  --runtime IMAGE          the TPU software version, else chosen by type
  --service_account EMAIL  what the workers reach the bucket as
  --create_flag FLAG       a flag for gcloud's create, such as --reserved
  --ssh_flag FLAG          a flag for gcloud's ssh and scp, such as --internal-ip

Everywhere: --project PROJECT, and --dry_run, which prints the commands that
would run and runs none.

Exit codes: 0 finished, 1 failed, 2 a mistake in the command or configuration,
75 stopped on request (run the same command again), 130 interrupted.
END
}

task='' name='' zone='' type='' project='' runtime='' commit='' before=''
worker=0 retries=3 to='' service_account='' spot='' keep='' dry_run='' secrets=''
create_flags=() more_ssh_flags=() variables=() arguments=()
workdir='' identity='' logs=''

# shellcheck source=tpu_cloud.sh
source "$here/tpu_cloud.sh"
# shellcheck source=tpu_babysit.sh
source "$here/tpu_babysit.sh"

# Reads --flag value and --flag=value; what follows -- are the arguments.
parse() {
  local flag value
  case ${1:-} in
    run | status | logs | ssh | fetch | stop | delete) task=$1 ;;
    '' | -h | --help | help)
      usage
      exit
      ;;
    *) usage_error "tpu.sh has no command $1: see bash launch/tpu.sh --help." ;;
  esac
  shift
  while [ $# -gt 0 ]; do
    flag=$1
    shift
    case $flag in
      --spot) spot=yes ;;
      --keep) keep=yes ;;
      --dry_run) dry_run=yes ;;
      -h | --help)
        usage
        exit
        ;;
      --)
        arguments=("$@")
        break
        ;;
      --*)
        case $flag in
          *=*) value=${flag#*=} flag=${flag%%=*} ;;
          *)
            [ $# -gt 0 ] || usage_error "$flag needs a value."
            value=$1
            shift
            ;;
        esac
        set_option "$flag" "$value"
        ;;
      *) usage_error "$flag is no option; the program's arguments follow --." ;;
    esac
  done
}

set_option() {
  case $1 in
    --name) name=$2 ;;
    --zone) zone=$2 ;;
    --type) type=$2 ;;
    --project) project=$2 ;;
    --runtime) runtime=$2 ;;
    --commit) commit=$2 ;;
    --before) before=$2 ;;
    --worker) worker=$2 ;;
    --retries) retries=$2 ;;
    --to) to=$2 ;;
    --service_account) service_account=$2 ;;
    --env) variables+=("$2") ;;
    --create_flag) create_flags+=("$2") ;;
    --ssh_flag) more_ssh_flags+=("$2") ;;
    *) usage_error "tpu.sh has no option $1: see bash launch/tpu.sh --help." ;;
  esac
}

check_options() {
  [ -n "$zone" ] || usage_error 'Name the zone: --zone us-west4-a, say.'
  [[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || usage_error \
    "--name=$name: a slice's name is up to 63 small letters, digits and" \
    'hyphens, the first one a letter.'
  [[ $retries =~ ^[1-9][0-9]*$ ]] || usage_error \
    "--retries=$retries is not a positive number."
  logs=$root/runs/tpu/$name
  to=${to:-$logs}
  if [ -z "$dry_run" ]; then
    command -v gcloud >/dev/null || usage_error 'gcloud was not found: install' \
      'the Google Cloud CLI, https://cloud.google.com/sdk/docs/install.'
    mkdir -p "$logs"
    : >"$logs/gcloud.log"
  fi
}

check_run() {
  local image variable
  case $type in
    '') usage_error 'Name the type of the slice: --type v5litepod-8, say.' ;;
    tpu7x* | v7x*) usage_error "$type is not served by the Cloud TPU API:" \
      'launch it by GKE (docs/launch.md#gke).' ;;
  esac
  image=$(runtime_of "$type") || [ -n "$runtime" ] || usage_error \
    "--type=$type is unknown: v2-, v3-, v4-, v5litepod-, v5p- or v6e- and a" \
    'size; for another one give --runtime too.'
  runtime=${runtime:-$image}
  for variable in ${variables[@]+"${variables[@]}"}; do
    # What else it says may be a secret.
    [[ $variable =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || usage_error \
      '--env takes the name of a variable, without its value.'
    [ -n "${!variable:-}" ] || usage_error "--env=$variable is not set here."
    secrets+="export $variable=$(quote "${!variable}")"$'\n'
  done
}

# Prints the value of the trainer's flag --$1, if it is there.
argument() {
  local i
  for ((i = 0; i < ${#arguments[@]}; i++)); do
    case ${arguments[i]} in
      "--$1="*) echo "${arguments[i]#*=}" ;;
      "--$1") echo "${arguments[i + 1]:-}" ;;
    esac
  done | tail -n 1
}

# Sets `workdir`, and says what would not survive.
check_workdir() {
  workdir=$(argument workdir)
  case $workdir in
    '') usage_error 'Say after -- where the run is kept:' \
      '--workdir gs://BUCKET/runs/NAME.' ;;
    *://*) ;;
    *)
      say "The run's folder $workdir is on a worker's disk: it goes with the" \
        'slice, and a preempted run begins again from step 0. Only a bucket,' \
        '--workdir gs://..., survives, and serves several workers.'
      ;;
  esac
}

# Sets `commit` and `identity`; refuses what the slice would not get.
check_commit() {
  local changed named=$commit config
  commit=$(git -C "$root" rev-parse --verify --quiet \
    "${named:-HEAD}^{commit}") || usage_error \
    "${named:-$root} is not a commit of git, and a commit is what is sent."
  changed=$(git -C "$root" status --porcelain)
  if [ -n "$changed" ]; then
    say "Not part of commit ${commit:0:12}:"
    printf '%s\n' "$changed"
    [ -n "$named" ] || usage_error 'Commit these changes, or name the commit' \
      'to run without them: --commit HEAD.'
  fi
  config=$(argument config)
  config=${config%%:*}
  [ -z "$config" ] || git -C "$root" cat-file -e "$commit:$config" 2>/dev/null ||
    usage_error "$config is not in commit ${commit:0:12}."
  identity=$commit-$(quote "${arguments[@]}" "$before" | cksum | tr ' ' -)
}

# Prints the command that does $1 to this slice.
hint() {
  quote bash "$0" "$1" --name "$name" --zone "$zone" \
    ${project:+--project "$project"}
}

# Runs gcloud's ssh where a person sees and answers it.
talk() {
  set -- gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" \
    ${project:+"--project=$project"} "--worker=$worker" \
    ${more_ssh_flags[@]+"${more_ssh_flags[@]}"} "$@"
  if [ -n "$dry_run" ]; then quote "$@"; else exec "$@" 3>&-; fi
}

# Ends with what gcloud said.
give_up() {
  last_words >&2
  exit 1
}

show_status() {
  local number condition its_attempt code
  look || give_up
  say "$name in $zone: $state."
  [ "$state" = ACTIVE ] || return 0
  ask_workers || give_up
  while read -r _ number condition its_attempt code _; do
    say "Worker $number: $condition, attempt $its_attempt, exit code $code."
  done <<<"$report"
}

main() {
  exec 3>&1
  parse "$@"
  check_options
  ssh_flags+=(${more_ssh_flags[@]+"${more_ssh_flags[@]}"})
  case $task in
    run)
      check_run
      check_workdir
      check_commit
      babysit
      ;;
    status) show_status ;;
    logs) talk --command='bash tpu_worker.sh log' ;;
    ssh)
      if [ ${#arguments[@]} = 0 ]; then
        talk
      else
        talk "--command=$(quote "${arguments[@]}")"
      fi
      ;;
    fetch)
      [ ${#arguments[@]} = 1 ] || usage_error 'Name one folder: -- WORKDIR.'
      fetch "${arguments[0]}" || give_up
      ;;
    stop)
      on_workers all stop || give_up
      say "Asked to save and stop. The slice stays and costs money until:" \
        "$(hint delete)"
      ;;
    delete)
      look || give_up
      if [ "$state" = ABSENT ] && [ -z "$dry_run" ]; then
        say "There is no $name in $zone."
      else
        delete || give_up
        say "Deleted $name."
      fi
      ;;
  esac
}

main "$@"
