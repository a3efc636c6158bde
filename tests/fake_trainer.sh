#!/bin/bash
# The trainer of tests/fake_cloud.py: logs its arguments, prints two lines
# and does what the next line of $FAKE_CLOUD/plan says.

cd "$FAKE_CLOUD" || exit
# In one write: other workers append to the same file.
line=$(printf '%s|' "$FAKE_WORKER" "$@")
echo "$line" >>starts
echo "SECRET=${SECRET:-}" >>environment
env | grep -c TPU_SKIP_MDS_QUERY >>environment
start=$(grep -c "^$FAKE_WORKER|" starts)
action=$(sed -n "${start}p" plan)
echo "begin $start"
case $action in
  wait) # for the file go, or to be stopped
    trap 'exit 75' TERM
    touch waiting
    until [ -f go ]; do sleep 0.05; done
    action=0
    ;;
  deaf) # only notes that it should stop
    trap 'echo TERM >>signals' TERM
    touch waiting
    while true; do sleep 0.05; done
    ;;
  preempt) # the machine is gone, and everything on it
    # Once its first line has been followed to the other side.
    until grep -qs "begin $start" "../a clone/runs/tpu/"*/*/worker-*.log; do
      sleep 0.05
    done
    echo SUSPENDING >state
    kill -KILL "$PPID" $$
    ;;
  dying) # the program fails since the machine is going
    echo 'end'
    (sleep 0.3 && echo SUSPENDING >state) >/dev/null 2>&1 &
    exit 1
    ;;
  reboot)
    echo another >"$(echo "$HOME"/vdm_runs/*/boot_id)"
    kill -KILL "$PPID" $$
    ;;
esac
mkdir -p "$HOME/vdm/runs/my run"
echo "$start" >"$HOME/vdm/runs/my run/step"
echo 'end'
exit "$action"
