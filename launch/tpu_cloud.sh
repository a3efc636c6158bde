# shellcheck shell=bash disable=SC2034,SC2154 # Shares the variables of tpu.sh.
# Sourced by tpu.sh: gcloud's commands for one slice, and what they answer.
# Everything calls `cloud`, which prints instead with --dry_run.
#
# Of gcloud's exit code only zero is told from non-zero: 1 and 2 are its own
# errors as well as the remote command's, so states and exit codes of a run
# arrive as text.

poll=${VDM_TPU_POLL_SECONDS:-10}
state=ABSENT     # Of the queued resource, after `look`.
report=          # One line per worker, after `ask_workers`.
outgoing=        # Folder of what is being sent, with the secrets.
planned=ABSENT   # What --dry_run takes the state to be.
ssh_flags=(
  --ssh-flag=-oBatchMode=yes # An answer from nobody would be waited for.
  --ssh-flag=-oServerAliveInterval=30
  --ssh-flag=-oServerAliveCountMax=4
)

# Prints its arguments as words of a POSIX shell.
quote() {
  local word flag line='' mark="'" escaped="'\\''"
  for word; do
    flag=
    [[ ! $word =~ ^--[a-z_-]+= ]] || flag=${BASH_REMATCH[0]}
    word=${word#"$flag"}
    case $word in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) word=$mark${word//$mark/$escaped}$mark ;;
    esac
    line+=${line:+ }$flag$word
  done
  printf '%s\n' "$line"
}

say() {
  if [ -n "$dry_run" ]; then
    printf '# %s\n' "$*"
  else
    printf 'tpu.sh %s %s\n' "$(date '+%H:%M:%S')" "$*"
  fi
}

usage_error() {
  printf '%s\n' "$*" >&2
  exit 2
}

# Runs `gcloud compute tpus ...`; what it says about itself goes to a file. In a
# subshell, become=exec makes gcloud replace it, so that it can be killed.
cloud() {
  set -- gcloud compute tpus "$@" "--zone=$zone" \
    ${project:+"--project=$project"} --quiet
  if [ -n "$dry_run" ]; then
    quote "$@" >&3
    return
  fi
  ${become:-} "$@" </dev/null 2>>"$logs/gcloud.log" 3>&-
}

# Prints the end of what gcloud said, which may be nothing.
last_words() {
  grep -v '^$' "$logs/gcloud.log" 2>/dev/null | tail -n 3 || true
}

# Sets `state`. A list, since describing what is absent is an error like others.
look() {
  local answer
  answer=$(cloud queued-resources list \
    "--filter=name~/queuedResources/$name\$" '--format=value(state.state)') ||
    return
  state=${answer:-ABSENT}
  [ -z "$dry_run" ] || state=$planned
}

create() {
  local flags=()
  [ -z "$spot" ] || flags+=(--spot)
  [ -z "$service_account" ] || flags+=("--service-account=$service_account")
  cloud queued-resources create "$name" "--node-id=$name" \
    "--accelerator-type=$type" "--runtime-version=$runtime" \
    ${flags[@]+"${flags[@]}"} ${create_flags[@]+"${create_flags[@]}"} &&
    planned=ACTIVE
}

# Deletes the request and its machines; --force, since it may be active.
delete() {
  cloud queued-resources delete "$name" --force && planned=ABSENT
}

# Why the request failed, as the service says it.
why_failed() {
  cloud queued-resources list "--filter=name~/queuedResources/$name\$" \
    '--format=value(state.failedData.error.message)' || true
}

# Prints the runtime image for a type; no other generation is served.
runtime_of() {
  case $1 in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) return 1 ;;
  esac
}

# Runs a shell command on worker $1, a number or all.
ssh_to() {
  cloud tpu-vm ssh "$name" "--worker=$1" "${ssh_flags[@]}" "--command=$2"
}

# Runs a task of tpu_worker.sh on worker $1, a number or all.
on_workers() {
  local workers=$1
  shift
  ssh_to "$workers" "$(quote bash tpu_worker.sh "$@")"
}

# Sets `report` to the lines of `status` on all workers. New ones have no script.
ask_workers() {
  local answer
  answer=$(ssh_to all "if [ -f tpu_worker.sh ]; then bash tpu_worker.sh status;\
 else echo 'vdm 0 new - - -'; fi") || return
  if [ -n "$dry_run" ]; then
    answer="vdm 0 new - - -"
    [ -z "$attempt" ] || answer="vdm 0 exited $attempt 0 $identity"
  fi
  report=$(grep '^vdm ' <<<"$answer")
}

# The states in `report`, each once: "running", or "exited idle".
states() {
  cut -d ' ' -f 3 <<<"$report" | sort -u | xargs
}

# Copies the worker's script, the code and the secrets to all workers' home.
push() {
  local code=0
  outgoing=$(mktemp -d "${TMPDIR:-/tmp}/vdm.XXXXXX") || return
  local archive=(git -C "$root" archive --format=tar.gz
    -o "$outgoing/vdm.tar.gz" "$commit")
  [ -z "$dry_run" ] || quote "${archive[@]}" >&3
  cp "$here/tpu_worker.sh" "$outgoing" &&
    { [ -n "$dry_run" ] || "${archive[@]}"; } &&
    { [ -z "$secrets" ] ||
      (umask 077 && echo "$secrets" >"$outgoing/vdm.env"); } &&
    cloud tpu-vm scp "$outgoing/tpu_worker.sh" "$outgoing/vdm.tar.gz" \
      ${secrets:+"$outgoing/vdm.env"} "$name:" --worker=all \
      ${more_ssh_flags[@]+"${more_ssh_flags[@]}"} || code=$?
  remove_outgoing
  return "$code"
}

remove_outgoing() {
  [ -z "$outgoing" ] || rm -rf "$outgoing"
  outgoing=
}
