"""A Hugging Face hub on this machine: what uploads and downloads ask of it.

One thread serves: a repository is created, files are sent inline or through the
storage for large files, and a commit makes them a revision. Whatever is asked
is kept in `requests`, the token with it.
"""

import base64
import hashlib
from http import server
import json
import re
import threading
import urllib.parse

INLINE = 1000  # Bytes of a file that is sent with the commit.


class Hub:
  """The server and its content.

  Attributes:
    url: for HF_ENDPOINT.
    repos: {'owner/name': {'private': bool, 'commits': {sha: {path: bytes}}}}.
    requests: (method, path, authorization) of each request.
    token: that is accepted.
  """

  def __init__(self, token='hf_test'):
    self.repos, self.requests, self.objects = {}, [], {}
    self.token = token
    handler = type('Handler', (_Handler,), {'hub': self})
    self._server = server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self.url = f'http://127.0.0.1:{self._server.server_address[1]}'
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def close(self):
    self._server.shutdown()
    self._server.server_close()

  def commit(self, repo, files):
    """Adds files to those of the newest commit; returns the new one."""
    commits = self.repos[repo]['commits']
    files = {**(list(commits.values())[-1] if commits else {}), **files}
    text = repr([len(commits), sorted(files.items())])
    sha = hashlib.sha1(text.encode()).hexdigest()
    commits[sha] = files
    return sha


class _Handler(server.BaseHTTPRequestHandler):
  hub = None
  protocol_version = 'HTTP/1.1'

  def log_message(self, *args):
    del args

  def do_GET(self):
    self._answer('GET')

  def do_HEAD(self):
    self._answer('HEAD')

  def do_POST(self):
    self._answer('POST')

  def do_PUT(self):
    self._answer('PUT')

  def _answer(self, method):
    body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
    path = urllib.parse.unquote(self.path.split('?')[0])
    token = self.headers.get('Authorization', '')
    self.hub.requests.append((method, path, token))
    if path.startswith('/storage/') and method == 'PUT':
      self.hub.objects[path.split('/')[-1]] = body
      return self._send({})
    if path == '/api/validate-yaml':
      assert body.count(b'---') >= 2
      return self._send({'errors': [], 'warnings': []})
    if path == '/api/repos/create':
      return self._create(json.loads(body), token)
    found = re.fullmatch(
      r'/(?:api/models/)?(?P<repo>[\w.-]+/[\w.-]+?)(?:\.git/info/lfs/objects)?'
      r'/(?P<action>revision|tree|preupload|commit|batch|resolve)'
      r'(?:/(?P<revision>[^/]+))?(?:/(?P<rest>.+))?',
      path,
    )
    repo = self.hub.repos.get(found['repo']) if found else None
    if repo is None or (repo['private'] and not self._allowed(token)):
      return self._send({'error': 'not found'}, 404, 'RepoNotFound')
    return getattr(self, f'_{found["action"]}')(found, repo, body)

  def _allowed(self, token):
    return token == f'Bearer {self.hub.token}'

  def _create(self, content, token):
    if not self._allowed(token):
      return self._send({'error': 'Invalid username or password.'}, 401)
    name = f'{content["organization"]}/{content["name"]}'
    private = (  # Older versions of the library say the first.
      content.get('private') or content.get('visibility') == 'private'
    )
    fresh = {'private': private, 'commits': {}}
    known = name in self.hub.repos
    self.hub.repos.setdefault(name, fresh)
    return self._send({'url': f'{self.hub.url}/{name}'}, 409 if known else 200)

  def _files(self, found, repo):
    commits = repo['commits']
    sha = found['revision']
    if sha == 'main':
      sha = list(commits)[-1] if commits else ''
    return sha, commits.get(sha)

  def _revision(self, found, repo, body):
    sha, files = self._files(found, repo)
    if files is None:
      return self._send({'error': 'no revision'}, 404, 'RevisionNotFound')
    siblings = [{'rfilename': name} for name in files]
    return self._send({'id': found['repo'], 'sha': sha, 'siblings': siblings})

  def _tree(self, found, repo, body):
    _, files = self._files(found, repo)
    if files is None:
      return self._send({'error': 'no revision'}, 404, 'RevisionNotFound')
    return self._send(
      [
        {'type': 'file', 'path': k, 'size': len(v), 'oid': _oid(v)}
        for k, v in files.items()
      ]
    )

  def _preupload(self, found, repo, body):
    files = [
      {
        'path': file['path'],
        'uploadMode': 'regular' if file['size'] < INLINE else 'lfs',
        'shouldIgnore': False,
      }
      for file in json.loads(body)['files']
    ]
    return self._send({'files': files})

  def _batch(self, found, repo, body):
    objects = [
      {
        'oid': x['oid'],
        'size': x['size'],
        'actions': {'upload': {'href': f'{self.hub.url}/storage/{x["oid"]}'}},
      }
      for x in json.loads(body)['objects']
    ]
    return self._send({'transfer': 'basic', 'objects': objects})

  def _commit(self, found, repo, body):
    files = {}
    for line in map(json.loads, body.splitlines()):
      value = line['value']
      if line['key'] == 'file':
        files[value['path']] = base64.b64decode(value['content'])
      elif line['key'] == 'lfsFile':
        files[value['path']] = self.hub.objects[value['oid']]
    sha = self.hub.commit(found['repo'], files)
    url = f'{self.hub.url}/{found["repo"]}/commit/{sha}'
    return self._send({'success': True, 'commitOid': sha, 'commitUrl': url})

  def _resolve(self, found, repo, body):
    sha, files = self._files(found, repo)
    data = (files or {}).get(found['rest'])
    if data is None:
      return self._send({'error': 'no file'}, 404, 'EntryNotFound')
    return self._send(data, commit=sha)

  def _send(self, content, status=200, error='', commit=''):
    binary = isinstance(content, bytes)
    data = content if binary else json.dumps(content).encode()
    self.send_response(status)
    self.send_header('Content-Length', str(len(data)))
    kind = 'application/octet-stream' if binary else 'application/json'
    self.send_header('Content-Type', kind)
    if error:
      self.send_header('X-Error-Code', error)
    if commit:
      self.send_header('X-Repo-Commit', commit)
      self.send_header('ETag', f'"{_oid(data)}"')
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(data)


def _oid(data):
  return hashlib.sha1(data).hexdigest()
