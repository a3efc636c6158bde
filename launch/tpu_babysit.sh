# shellcheck shell=bash disable=SC2154 # Shares the variables of tpu.sh.
# Sourced by tpu.sh: `babysit` brings one slice from whatever state it is in to
# a finished run. It keeps no state of its own that matters: what it needs is
# read from the queue and from the workers, so a second start goes on where an
# interrupted one was.

settle=${VDM_TPU_SETTLE_SECONDS:-60} # A preemption shows up within this time.
short=${VDM_TPU_SHORT_SECONDS:-300}  # A run that stops sooner made no progress.
long=${VDM_TPU_LONG_SECONDS:-3600}   # One that ran longer clears the failures.
unreachable_limit=10                 # Each takes gcloud about a minute.

attempt=    # The start of the trainer that is being followed.
started=    # When it was, in seconds of this shell; unknown if not by it.
failures=0  # Of the program, in a row.
silences=0  # Failed connections in a row.
asked=      # Whether this program has requested the slice before.
has_results= # Whether the trainer ran on this slice.
reached=    # Whether this slice ever answered.
follower=   # gcloud while it prints the log.
shown=      # The last state that was printed.
ended=      # Whether nothing is left to warn about.

babysit() {
  local outage
  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  [ -z "$dry_run" ] || say 'If there is no such slice yet, and nothing fails:'
  look || give_up_without_slice
  while true; do
    if [ "$state" != "$shown" ]; then
      say "$name ($type, $zone): $state."
      shown=$state
    fi
    case $state in
      ABSENT) create_slice ;;
      ACTIVE) attend ;;
      SUSPENDING | SUSPENDED)
        say 'The slice was preempted: making it anew. This is no failure.'
        delete_surely
        ;;
      FAILED)
        say "The request failed: $(why_failed)"
        count_failure "the request for $type in $zone failed"
        delete_surely
        ;;
      *) pause ;; # ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, DELETING...
    esac
    # The queue cannot be asked while this machine has no network; the run goes
    # on without it.
    outage=0
    until look; do
      [ $((outage % 30)) != 0 ] ||
        say "gcloud does not answer, trying on: $(last_words)"
      outage=$((outage + 1))
      pause
    done
  done
}

pause() {
  [ -n "$dry_run" ] || sleep "$poll"
}

create_slice() {
  attempt='' reached='' has_results='' silences=0
  say "Requesting $name: $type in $zone${spot:+, spot}, image $runtime."
  if create; then
    asked=yes
  elif [ -z "$asked" ]; then
    give_up_without_slice
  else
    say "That failed, trying again: $(last_words)"
    pause
  fi
}

# Deletes the slice; the loop then finds it absent.
delete_surely() {
  until delete; do
    say "Deleting failed, trying again: $(last_words)"
    pause
    if look && [ "$state" = ABSENT ]; then
      return
    fi
  done
}

# The slice is active: follows the trainer, or judges it, or starts it.
attend() {
  local found theirs
  if ! ask_workers; then
    count_silence
    return
  fi
  silences=0 reached=yes
  found=$(cut -d ' ' -f 4 <<<"$report" | sort -u | xargs)
  theirs=$(cut -d ' ' -f 6 <<<"$report" | sort -u | xargs)
  if grep -qw running <<<"$(states)" && [ "$found" = "${found%% *}" ]; then
    if [ "$theirs" != "$identity" ]; then
      ended=yes
      usage_error "$name already runs another command or commit: stop it" \
        "($(hint stop)) or choose another --name."
    fi
    [ "$attempt" = "$found" ] || {
      say "Following attempt $found, which runs already."
      attempt=$found started='' has_results=yes
    }
    follow
  elif [ -n "$attempt" ] && [ "$found" = "$attempt" ]; then
    judge
  else
    begin
  fi
}

# Installs and starts on all workers, in whatever state they are.
begin() {
  local new setup_log=/dev/null
  [ -n "$dry_run" ] || setup_log=$logs/setup.log
  attempt=
  case $(states) in
    *running*)
      say 'Only some workers run the trainer: stopping those.'
      on_workers all stop || true
      pause
      return
      ;;
  esac
  say "Sending commit ${commit:0:12} and installing; minutes, the first time."
  if ! push; then
    did_not_begin 'sending the code failed'
    return
  elif ! on_workers all setup "$commit" >"$setup_log"; then
    tail -n 20 "$setup_log"
    did_not_begin "installing failed, $setup_log has the rest"
    return
  fi
  if [ -n "$before" ]; then
    say "On every worker: $before"
    if ! on_workers all before "$before"; then
      did_not_begin 'the command of --before failed'
      return
    fi
  fi
  new=$(date -u '+%Y%m%d-%H%M%S')-$$-$RANDOM
  say "Starting: $(quote "${arguments[@]}")"
  if ! on_workers all start "$new" "$identity" "${arguments[@]}"; then
    did_not_begin 'the trainer did not start'
    return
  fi
  attempt=$new started=$SECONDS has_results=yes
  [ -n "$dry_run" ] || mkdir -p "$logs/$attempt"
  follow
}

# Prints the log of all workers, and writes it to files, until the trainer has
# ended or the connection is lost.
follow() {
  local line worker number file lines=() positions=()
  say "Logs: $logs/$attempt/worker-N.log"
  if [ -n "$dry_run" ]; then
    on_workers all follow "$attempt"
    return
  fi
  mkdir -p "$logs/$attempt"
  for file in "$logs/$attempt"/worker-*.log; do
    [ -f "$file" ] || continue
    worker=${file##*-} worker=${worker%.log}
    lines[worker]=$(($(wc -l <"$file"))) # Without macOS's spaces.
    positions+=("$worker:$((lines[worker] + 1))")
  done
  exec 4< <(become='exec' on_workers all follow "$attempt" \
    ${positions[@]+"${positions[@]}"})
  set +u # Old versions of bash set no $! here.
  follower=$!
  set -u
  while IFS= read -r line <&4; do
    # WORKER:LINE:TEXT. gcloud begins again after a broken connection.
    worker=${line%%:*} line=${line#*:}
    number=${line%%:*} line=${line#*:}
    case ${worker:-x}${number:-x} in *[!0-9]*) continue ;; esac
    [ "$number" -gt "${lines[worker]:-0}" ] || continue
    lines[worker]=$number
    printf '%s\n' "$line" >>"$logs/$attempt/worker-$worker.log"
    [ "$worker" = 0 ] || line="[$worker] $line"
    printf '%s\n' "$line"
  done
  exec 4<&-
  follower=
}

# The trainer has ended on all workers: finishes, or leaves it to be started
# again, here or on a new slice.
judge() {
  local codes ran=${started:+$((SECONDS - started))}
  codes=$(cut -d ' ' -f 5 <<<"$report" | sort -u | xargs)
  say "The trainer $(states)${ran:+ after $ran s} with exit code $codes."
  if grep -qw stopped <<<"$(states)"; then
    say "Stopped on request."
    exit 75
  elif grep -qw 2 <<<"$codes"; then
    say 'A mistake in the command or configuration: it would only repeat.'
    finish 2
  elif [ "$codes" = 0 ]; then
    say 'Finished.'
    finish 0
  fi
  stays_active || return 0
  if grep -qw rebooted <<<"$(states)" || [ "$codes" = 75 ] ||
    [ "$codes" = '0 75' ]; then
    # It may have run for days before this program followed it.
    [ "${ran:-$short}" -ge "$short" ] ||
      count_failure "it was stopped after $ran s"
    say 'Stopped before the end: the same command again.'
  else
    [ "${ran:-0}" -lt "$long" ] || failures=0
    count_failure "the program $(states) with exit code $codes"
  fi
  attempt=
}

# Whether the slice is still there after a while: a program that fails because
# its machine is being taken away ends before the queue knows of it.
stays_active() {
  local end=$((SECONDS + settle))
  while true; do
    look && [ "$state" != ACTIVE ] && return 1
    [ "$SECONDS" -lt "$end" ] || return 0
    pause
  done
}

# Counts what would repeat on a machine that is healthy.
count_failure() {
  failures=$((failures + 1))
  say "Failure $failures of $retries: $1."
  [ "$failures" -lt "$retries" ] || finish 1
}

did_not_begin() {
  last_words
  stays_active || return 0
  count_failure "$1"
}

# An active slice does not answer. Being preempted, usually.
count_silence() {
  silences=$((silences + 1))
  say "No answer over ssh ($silences of $unreachable_limit): $(last_words)"
  if [ "$silences" -ge "$unreachable_limit" ]; then
    if [ -z "$reached" ]; then
      say "It never answered: see docs/launch.md#when-ssh-does-not-answer."
      finish 1
    fi
    count_failure 'the slice stopped answering'
    delete_surely
  fi
  pause
}

# Ends this program with exit code $1: fetches what would be lost, deletes.
finish() {
  if [ -n "$has_results" ] && ! fetch_results; then
    say "Not deleted, since $workdir could not be fetched: $(last_words)"
    exit "$1"
  fi
  if [ -n "$keep" ]; then
    exit "$1"
  fi
  say "Deleting $name."
  delete_surely
  ended=yes
  say 'Deleted: nothing runs and nothing costs money any more.'
  exit "$1"
}

give_up_without_slice() {
  ended=yes
  give_up
}

# Copies a run's folder that is on the workers' disks; a bucket stays.
fetch_results() {
  case $workdir in
    *://*) return ;;
  esac
  say "Fetching $workdir into $to."
  fetch "$workdir"
}

fetch() {
  if [ -n "$dry_run" ]; then
    on_workers 0 pack "$1"
    return
  fi
  mkdir -p "$to"
  on_workers 0 pack "$1" | tar -xf - -C "$to"
}

# However this program ends, no secrets stay in its files, and nobody pays for a
# slice unknowingly.
clean_up() {
  local code=$?
  remove_outgoing
  [ -z "$follower" ] || kill "$follower" 2>/dev/null || true
  [ -n "$ended" ] || [ -n "$dry_run" ] || [ "$state" = ABSENT ] || {
    say "$name ($type, $zone) is still there, $state: it costs money, or will" \
      "when the queue serves it. What runs on it goes on running."
    say "To follow it again: the same command."
    say "To delete it: $(hint delete)"
  }
  exit "$code"
}
