"""launch/tpu.sh run: preemptions, failures, interruptions."""

import os
import pathlib
import signal

import fake_cloud
import pytest

pytestmark = fake_cloud.NEEDED


@pytest.fixture
def cloud(tmp_path):
  with fake_cloud.open_cloud(tmp_path) as cloud:
    yield cloud


def test_run_from_request_to_deletion(cloud):
  result = cloud.run([0], '--spot', '--project', 'mine')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete']
  create = next(x for x in cloud.lines('calls') if 'resources create' in x)
  for word in (
    'demo',
    '--node-id=demo',
    '--accelerator-type=v5litepod-8',
    '--spot',
    '--runtime-version=v2-alpha-tpuv5-lite',
    '--zone=us-west4-a',
    '--project=mine',
    '--quiet',
  ):
    assert word in create.split()
  # Spaces in arguments survive two shells.
  assert cloud.lines('starts') == [f'0|{"|".join(fake_cloud.TRAINER)}|']
  for state in ('WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'):
    assert f'demo (v5litepod-8, us-west4-a): {state}.' in result.stdout
  (log,) = cloud.logs()
  assert log[-2:] == ['begin 1', 'end']
  assert '\nbegin 1\nend\n' in result.stdout
  assert 'still there' not in result.stdout
  # Set up by launch/setup.sh, once, for a TPU.
  pip = [x for x in cloud.lines('python_calls') if 'pip|install' in x]
  assert len(pip) == 1
  assert (cloud.home() / 'vdm/.venv/vdm_stamp').exists()
  packages = (cloud.home() / 'vdm/.venv/vdm_packages.txt').read_text()
  assert 'jax[tpu]' in packages or 'libtpu==' in packages


def test_preempted_run_resumes_on_a_new_slice(cloud):
  result = cloud.run(['preempt', 0], '--retries', '1')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete'] * 2
  assert cloud.lines('starts') == [f'0|{"|".join(fake_cloud.TRAINER)}|'] * 2
  assert result.stdout.count('The slice was preempted') == 1
  assert 'Failure' not in result.stdout
  assert [log[-1] for log in cloud.logs()] == ['begin 1', 'end']


def test_failing_while_being_preempted_is_no_failure(cloud):
  result = cloud.run(['dying', 0], '--retries', '1', VDM_TPU_SETTLE_SECONDS='3')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete'] * 2


def test_stopped_run_goes_on_on_the_same_slice(cloud):
  result = cloud.run([75, 0], '--retries', '1')
  assert result.returncode == 0, result.stdout + result.stderr
  assert cloud.calls() == ['create', 'delete']
  assert len(cloud.lines('starts')) == 2
  # Nothing is installed again.
  assert sum('pip|install' in x for x in cloud.lines('python_calls')) == 1


def test_run_that_stops_at_once_again_and_again_is_given_up(cloud):
  result = cloud.run([75] * 9, '--retries', '2', VDM_TPU_SHORT_SECONDS='100')
  assert result.returncode == 1
  assert len(cloud.lines('starts')) == 2
  assert cloud.calls() == ['create', 'delete']


def test_three_failures_end_it(cloud):
  result = cloud.run([1, 1, 1, 0])
  assert result.returncode == 1
  assert len(cloud.lines('starts')) == 3
  assert 'Failure 3 of 3: the program exited with exit code 1' in result.stdout
  assert cloud.calls() == ['create', 'delete']


def test_a_long_attempt_clears_the_failures(cloud):
  result = cloud.run([1, 1, 0], '--retries', '2', VDM_TPU_LONG_SECONDS='0')
  assert result.returncode == 0, result.stdout + result.stderr
  assert 'Failure 2' not in result.stdout


def test_mistake_in_the_command_ends_it_at_once(cloud):
  result = cloud.run([2, 0], '--keep')
  assert result.returncode == 2
  assert len(cloud.lines('starts')) == 1
  assert cloud.calls() == ['create']
  assert 'demo (v5litepod-8, us-west4-a) is still there, ACTIVE' in (
    result.stdout
  )


def test_restarted_machine_starts_the_same_command(cloud):
  result = cloud.run(['reboot', 0], '--retries', '1')
  assert result.returncode == 0, result.stdout + result.stderr
  assert 'The trainer rebooted after' in result.stdout
  assert cloud.calls() == ['create', 'delete']


def test_slice_deleted_by_hand_is_made_anew(cloud):
  process = fake_cloud.start(cloud, ['wait', 0])
  fake_cloud.wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  assert cloud.call('delete', *fake_cloud.SLICE).returncode == 0
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 0, output
  assert cloud.calls() == ['create', 'delete'] * 2
  assert len(cloud.lines('starts')) == 2


def test_lost_connection_is_made_again_and_no_line_is_lost(cloud):
  cloud.write('drop')
  process = fake_cloud.start(cloud, ['wait'])
  fake_cloud.wait_for(
    lambda: sum(' follow ' in x for x in fake_cloud.plain(cloud)) == 2
  )
  cloud.write('go')
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 0, output
  assert len(cloud.lines('starts')) == 1
  (log,) = cloud.logs()
  assert log[log.index('begin 1') :] == ['begin 1', 'end']


def test_interrupted_and_followed_again(cloud):
  process = fake_cloud.start(cloud, ['wait', 1])
  fake_cloud.wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  os.killpg(process.pid, signal.SIGINT)
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 130
  assert 'is still there, ACTIVE: it costs money' in output
  delete = f'bash "{cloud.root}/launch/tpu.sh" delete --name demo'
  assert delete.replace('"', "'") in output

  process = fake_cloud.start(cloud, ['wait', 1])
  fake_cloud.wait_for(
    lambda: sum(' follow ' in x for x in fake_cloud.plain(cloud)) == 2
  )
  cloud.write('go')
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 0, output
  assert 'which runs already' in output
  assert len(cloud.lines('starts')) == 1
  assert cloud.calls() == ['create', 'delete']
  (log,) = cloud.logs()
  assert log[log.index('begin 1') :] == ['begin 1', 'end']


def test_followed_run_that_soon_stops_is_no_failure(cloud):
  """It may have run for days before."""
  process = fake_cloud.start(cloud, ['wait', 0])
  fake_cloud.wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  os.killpg(process.pid, signal.SIGINT)
  process.communicate(timeout=fake_cloud.TIMEOUT)
  process = fake_cloud.start(
    cloud, ['wait', 0], '--retries', '1', VDM_TPU_SHORT_SECONDS='100'
  )
  fake_cloud.wait_for(
    lambda: sum(' follow ' in x for x in fake_cloud.plain(cloud)) == 2
  )
  # The trainer saves and stops, as before its machine restarts.
  (pid,) = cloud.home().glob('vdm_runs/*/trainer_pid')
  os.kill(int(pid.read_text()), signal.SIGTERM)
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 0, output
  assert 'The trainer exited with exit code 75.' in output
  assert 'Failure' not in output
  assert len(cloud.lines('starts')) == 2


def test_interrupted_while_sending_leaves_no_secrets(cloud, tmp_path):
  sent = tmp_path / 'sent'
  sent.mkdir()
  (cloud.bin / 'gcloud').rename(cloud.bin / 'the_other_gcloud')
  slow = 'touch "$FAKE_CLOUD/sending"; sleep 60'
  cloud.add(
    'gcloud',
    f'#!/bin/bash\ncase $4 in scp) {slow} ;; esac\nthe_other_gcloud "$@"\n',
  )
  process = fake_cloud.start(
    cloud, [0], '--env', 'SECRET', SECRET='hush', TMPDIR=str(sent)
  )
  fake_cloud.wait_for((cloud.folder / 'sending').exists)
  (file,) = sent.glob('vdm.*/vdm.env')
  assert 'hush' in file.read_text()
  os.killpg(process.pid, signal.SIGINT)
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 130
  assert 'it costs money' in output
  assert not list(sent.iterdir())


def test_terminated_alone_leaves_no_gcloud_behind(cloud):
  process = fake_cloud.start(cloud, ['wait'])
  fake_cloud.wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  process.terminate()
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 143
  assert 'it costs money' in output
  (gcloud,) = cloud.lines('followers')
  fake_cloud.wait_for(lambda: not pathlib.Path(f'/proc/{gcloud}').exists())


def test_another_command_is_refused(cloud):
  process = fake_cloud.start(cloud, ['wait'])
  fake_cloud.wait_for(lambda: cloud.lines('starts'))
  other = cloud.run(['wait'], trainer=(*fake_cloud.TRAINER, '--config.seed=1'))
  assert other.returncode == 2
  assert 'already runs another command or commit' in other.stderr
  cloud.write('go')
  process.communicate(timeout=fake_cloud.TIMEOUT)
  assert process.returncode == 0
  assert len(cloud.lines('starts')) == 1


def test_stop_saves_and_keeps_the_slice(cloud):
  process = fake_cloud.start(cloud, ['wait'])
  fake_cloud.wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  status = cloud.call('status', *fake_cloud.SLICE)
  assert 'Worker 0: running' in status.stdout
  result = cloud.call('stop', *fake_cloud.SLICE)
  assert result.returncode == 0, result.stderr
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 75, output
  assert 'it costs money' in output
  assert cloud.calls() == ['create']
  assert 'Worker 0: stopped' in cloud.call('status', *fake_cloud.SLICE).stdout
  # The same command again resumes there, then the slice goes.
  cloud.write('go')
  assert cloud.run(['wait', 0]).returncode == 0
  assert cloud.calls() == ['create', 'delete']


def test_request_that_fails_is_explained_and_given_up(cloud):
  result = cloud.run([0], FAKE_BECOMES='FAILED')
  assert result.returncode == 1
  assert 'The request failed: Quota exceeded.' in result.stdout
  # It would count against the quota of requests.
  assert cloud.calls() == ['create', 'delete'] * 3


def test_slice_that_never_answers_is_given_up(cloud):
  cloud.write('mute')
  result = cloud.run([0])
  assert result.returncode == 1
  assert 'No answer over ssh (10 of 10)' in result.stdout
  assert cloud.calls() == ['create', 'delete']


def test_network_that_is_gone_for_a_while_ends_nothing(cloud):
  process = fake_cloud.start(cloud, ['wait'])
  fake_cloud.wait_for(lambda: cloud.logs() and 'begin 1' in cloud.logs()[0])
  gcloud = cloud.bin / 'gcloud'
  gcloud.rename(cloud.bin / 'gcloud_when_online')
  cloud.add('gcloud', '#!/bin/bash\ntouch "$FAKE_CLOUD/offline"\nexit 1\n')
  cloud.write('go')
  fake_cloud.wait_for((cloud.folder / 'offline').exists)
  (cloud.bin / 'gcloud_when_online').rename(gcloud)
  output = process.communicate(timeout=fake_cloud.TIMEOUT)[0]
  assert process.returncode == 0, output
  assert 'gcloud does not answer' in output
  assert cloud.calls() == ['create', 'delete']
