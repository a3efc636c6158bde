"""A bucket on this machine, for tests: `python tests/bucket_emulator.py NAME`.

Serves `gs://NAME` from memory in a process of its own, prints its port and ends
when its standard input is closed. It is gcp-storage-emulator with what Google's
service has and the libraries here rely on:

  preconditions (`ifGenerationMatch`, `ifGenerationNotMatch`) and the header
  `x-goog-generation`, without which TensorStore refuses to write;

  `moveTo`, which gcsfs tries for 30 s before it copies and deletes instead;

  an upload that its client does not finish, because it was killed, leaves no
  object.
"""

import functools
from http import HTTPStatus
from http import server as http_server
import sys
import threading

ROUTE = r'.*/b/(?P<bucket_name>[-.\w]+)/o'


def environment(port):
  """Returns the variables by which the libraries find the emulator."""
  address = f'http://127.0.0.1:{port}'
  return {
    'STORAGE_EMULATOR_HOST': address,  # Of gcsfs and google-cloud-storage.
    'TENSORSTORE_GCS_HTTP_URL': address,
    'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',  # TensorStore logs in with it.
    # gcsfs would ask Google itself, by gRPC, what kind of bucket it is.
    'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
  }


def main(bucket):
  # Here, so that tests can import `environment` without the package.
  from gcp_storage_emulator import server
  from gcp_storage_emulator import storage
  from gcp_storage_emulator.handlers import buckets

  store = storage.Storage(use_memory_fs=True)
  buckets.create_bucket(bucket, store)
  # What is deleted need not be kept, nor the list of everything be stored.
  store.get_bucket(bucket)['softDeletePolicy'] = {'retentionDurationSeconds': 0}
  store._write_config_to_file = lambda: None
  server._read_raw_data = whole(server._read_raw_data)
  server.HANDLERS = (
    (rf'{ROUTE}/(?P<object_id>.+)/moveTo/o/(?P<target>.+)', {'POST': move}),
    *(
      (route, {method: conditional(handle) for method, handle in known.items()})
      for route, known in server.HANDLERS
    ),
  )
  handler = functools.partial(Quiet.of(server.RequestHandler), store)
  # One request at a time: the store has no locks.
  service = http_server.HTTPServer(('127.0.0.1', 0), handler)
  print(service.server_address[1], flush=True)
  threading.Thread(target=service.serve_forever, daemon=True).start()
  sys.stdin.read()


class Quiet:
  """Logs no requests."""

  @classmethod
  def of(cls, base):
    return type('Handler', (cls, base), {})

  def log_message(self, *args):
    pass


def whole(read):
  """Refuses a body that ends before its length."""

  def read_whole(handler):
    data = read(handler)
    if len(data or b'') < int(handler.headers.get('Content-Length') or 0):
      raise ConnectionAbortedError('The client went away while it uploaded.')
    return data

  return read_whole


def conditional(handle):
  """Adds preconditions, and the generation of what is read, to a handler."""

  def conditional_handle(request, response, store):
    name = request.params.get('object_id')
    name = name or request.query.get('name', [None])[0]
    if name is None:
      return handle(request, response, store)
    known = store.objects.get(request.params['bucket_name'], {})
    found = known.get(name, {}).get('generation', '0')
    if request.query.get('ifGenerationMatch', [found])[0] != found:
      response.status = HTTPStatus.PRECONDITION_FAILED
      return request.data and None  # The body is read all the same.
    if request.query.get('ifGenerationNotMatch', [''])[0] == found:
      response.status = HTTPStatus.NOT_MODIFIED
      return None
    response['x-goog-generation'] = found
    return handle(request, response, store)

  return conditional_handle


def move(request, response, store):
  """Renames an object."""
  from gcp_storage_emulator import exceptions
  from gcp_storage_emulator.handlers import objects

  bucket, source, target = request.params.values()
  try:
    response.json(
      objects._copy(request.base_url, store, bucket, source, bucket, target)
    )
    store.delete_file(bucket, source)
  except exceptions.NotFound:
    response.status = HTTPStatus.NOT_FOUND


if __name__ == '__main__':
  main(sys.argv[1])
