import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { before, describe, test } from 'node:test';
import { type Stack, startStack } from '../support/stack.ts';

/** Texts that stand in policies, secret or not, none of which a plan may hold. */
const values = {
  argument: 'literal-in-an-argument',
  variable: 'literal-in-a-variable',
  file: 'literal-in-a-file',
  unused: 'literal-in-an-unused-file',
  notify: 'literal-in-a-notification',
  password: 'the-secret-password',
  theirs: 'the-secret-of-others',
  bytes: '00112233445566778899aabbccddeeff',
};

let stack: Stack;
before(async () => {
  stack = await startStack();
  stack.create('name: shop\nversion: "0.3.12"\n');
  stack.create(
    `name: shop/vault
version: "0.3.12"
security: {attestation: {mode: none}}
secrets:
  - {name: theirs, kind: ascii, value: ${values.theirs}, export: {session: shop/web}}
  - {name: same, kind: binary, export: {session: shop/web}}
  - {name: relayed, import: {session: shop/nowhere, secret: x}, export: {session: shop/web}}
`,
  );
  stack.create(web);
});

const otp = 'one_time_password_shared_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ';
const web = `name: shop/web
version: "0.3.12"
security: {attestation: {mode: none}}
services:
  - name: nginx
    image_name: nginx
    ${otp}
    command: [nginx, ${values.argument}, "--level=@@1", "$$SCONE::password$$", "a$$SCONE::bytes:hex$$-@@2-$$SCONE::bytes:hex$$b"]
    environment:
      URL: "${values.variable}:$$SCONE::password$$@$$SCONE::theirs$$"
      EMPTY: ""
      "@@LANG":
    pwd: /srv
  - {name: certified, image_name: certified, command: x, environment: {A: "$$SCONE::own$$"}}
  - {name: bare, image_name: bare, ${otp}}
  - {name: templated, image_name: templated, command: [x, "@@1"], ${otp}}
  - {name: restricted, image_name: restricted, ${otp}}
  - {name: alone, ${otp}}
  - name: broken
    image_name: broken
    command: [x, "$$SCONE::gone$$"]
    environment: {A: "$$SCONE::relayed$$", B: "$$SCONE::certificate$$", C: "$$SCONE::same:pem$$", D: "$$SCONE::elsewhere$$"}
images:
  - name: nginx
    injection_files:
      - {path: /in/key, content: "$$SCONE::key:pem$$"}
      - {path: /in/mixed, content: "${values.file} $$SCONE::same:hex$$ $$SCONE::password|escape(json)$$"}
      - {path: /in/unused, content: "${values.unused} $$SCONE::gone$$"}
      - {path: /in/page}
      - path: /etc/envcas/config.yaml
        content: |
          program: /usr/sbin/nginx
          sha256: ${'ab'.repeat(32)}
          user: www-data
          umask: 0027
          directories:
            - {path: /run/tls, mode: 0750, group: ssl-cert, generation: true}
            - {path: /run/web, owner: 33}
          injection_files:
            - {from: /in/key, to: /run/tls/private/key.pem, mode: 400, owner: root}
            - {from: /in/mixed, to: {fd: 7}}
            - {from: /in/page, to: /run/web/page, group: 44}
          supervise:
            on_change: {command: [/bin/notify, ${values.notify}, x]}
            splay: 1 min
            redact: true
  - name: certified
    injection_files:
      - {path: /etc/envcas/config.yaml, content: "program: /bin/true\\nsupervise: {}"}
  - {name: bare, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/true"}]}
  - name: templated
    injection_files: [/etc/envcas/config.yaml, {path: /in/key, content: "$$SCONE::key$$"}, /in/page]
  - {name: restricted, injection_files: [/etc/envcas/config.yaml], provide_secrets: [password, theirs]}
  - {name: broken, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/true"}]}
secrets:
  - {name: password, kind: ascii, value: ${values.password}}
  - {name: bytes, kind: binary, value: "${values.bytes}"}
  - {name: key, kind: private-key}
  - {name: theirs, import: {session: ../vault, secret: theirs}}
  - {name: same, import: {session: shop/vault, secret: same}}
  - {name: gone, kind: ascii, import: {session: shop/vault, secret: no-more}}
  - {name: relayed, import: {session: shop/vault, secret: relayed}}
  - {name: far-key, kind: private-key, import: {session: ../vault, secret: far-key}}
  - {name: own, kind: x509, private_key: key}
  - {name: certificate, kind: x509, private_key: far-key}
  - name: elsewhere
    kind: ascii
    import: {session: a, secret: b, cas_url: cas.example, cas_key: 4XSZ9jAb2EwXXyGLb2yMEK3Tnj8DfMjgNNQ18LkfJg7UJCpxad}
`;

const plan = (service: string) => JSON.parse(stack.scone('launch', 'plan', `shop/web/${service}`, '--json'));
const text = (service: string) => stack.scone('launch', 'plan', `shop/web/${service}`);
const secret = (name: string, format = '', more: object = {}) => ({
  ...{ from: 'secret', secret: name, format, import: null, unavailable: null },
  ...more,
});
const policy = { from: 'policy' };
const fromVault = (name: string) => ({ import: { session: 'shop/vault', secret: name, cas: null } });

test('it says what everything is made of, and where it goes', () => {
  assert.deepEqual(plan('nginx'), {
    session: 'shop/web',
    service: 'nginx',
    configuration: 'policy',
    program: '/usr/sbin/nginx',
    sha256: true,
    user: 'www-data',
    group: null,
    umask: '0027',
    pwd: '/srv',
    arguments: [
      { number: 1, sources: [policy] },
      { number: 2, sources: [policy, { from: 'host-argument', argument: 1 }] },
      { number: 3, sources: [secret('password')] },
      { number: 4, sources: [policy, secret('bytes', ':hex'), { from: 'host-argument', argument: 2 }] },
    ],
    environment: [
      { name: 'URL', sources: [policy, secret('password'), secret('theirs', '', fromVault('theirs'))] },
      { name: 'EMPTY', sources: [policy] },
      { name: 'LANG', sources: [{ from: 'host-variable', variable: 'LANG' }] },
    ],
    directories: [
      { path: '/run/tls', mode: '0750', owner: 'www-data', group: 'ssl-cert', generation: true },
      { path: '/run/web', mode: '0700', owner: '33', group: null, generation: false },
    ],
    files: [
      {
        ...{ from: '/in/key', to: '/run/tls/private/key.pem', fd: null },
        ...{ mode: '0400', owner: 'root', group: null, generation: '/run/tls' },
        sources: [secret('key', ':pem')],
      },
      {
        ...{ from: '/in/mixed', to: '/proc/self/fd/7', fd: 7 },
        ...{ mode: '0600', owner: 'www-data', group: null, generation: null },
        sources: [policy, secret('same', ':hex', fromVault('same')), secret('password')],
      },
      {
        ...{ from: '/in/page', to: '/run/web/page', fd: null },
        ...{ mode: '0600', owner: 'www-data', group: '44', generation: null },
        sources: [{ from: 'host-file', path: '/in/page' }],
      },
    ],
    otherFiles: [
      {
        from: '/in/unused',
        sources: [
          policy,
          secret('gone', '', {
            ...fromVault('no-more'),
            unavailable: 'the session shop/vault exports no no-more to this one',
          }),
        ],
      },
    ],
    providedSecrets: null,
    supervise: {
      onChange: { command: '/bin/notify', arguments: 2 },
      killSignal: 'SIGTERM',
      killTimeout: '10s',
      splay: '1 min',
      debounce: '100ms',
      removeFiles: false,
      redact: true,
    },
    // What the unused file would need is not asked for.
    problems: [],
  });
});

test('without a word on it, the launcher and its defaults decide', () => {
  const { files, directories, supervise, ...rest } = plan('bare');
  assert.deepEqual(
    [files, directories, supervise, rest.otherFiles, rest.providedSecrets],
    [[], [], null, [], []],
  );
  assert.deepEqual([rest.program, rest.sha256, rest.user, rest.group], ['/bin/true', false, null, null]);
  assert.deepEqual([rest.umask, rest.pwd, rest.arguments, rest.environment], [null, null, [], []]);
});

test('where a file on the host decides, that is said', () => {
  const templated = plan('templated');
  assert.deepEqual([templated.configuration, templated.program, templated.files], ['host', null, []]);
  assert.deepEqual(templated.otherFiles, [
    { from: '/in/key', sources: [secret('key')] },
    { from: '/in/page', sources: [{ from: 'host-file', path: '/in/page' }] },
  ]);
  assert.deepEqual([templated.providedSecrets, templated.problems], [null, []]);
  assert.match(text('templated'), /config\.yaml on the launcher's host says which/);
  assert.deepEqual(plan('restricted').providedSecrets, [
    secret('password'),
    secret('theirs', '', fromVault('theirs')),
  ]);
});

test('why a launch would fail is said, and everything else nevertheless', () => {
  const { configuration, problems } = plan('alone');
  assert.equal(configuration, null);
  assert.deepEqual(problems, ['the policy injects no /etc/envcas/config.yaml']);
  const broken = plan('broken');
  const unavailable = (name: string, detail: string) =>
    `the secret ${name} of session shop/web cannot be used: ${detail}`;
  assert.deepEqual(broken.problems, [
    unavailable('gone', 'the session shop/vault exports no no-more to this one'),
    unavailable('relayed', 'the session shop/vault cannot use it itself'),
    unavailable(
      'certificate',
      'it is made with far-key: the session shop/vault exports no far-key to this one',
    ),
    unavailable('same', 'a secret of kind binary has no format :pem'),
  ]);
  const elsewhere = { import: { session: 'a', secret: 'b', cas: 'cas.example' } };
  assert.deepEqual(broken.environment[3].sources, [secret('elsewhere', '', elsewhere)]);
  const [, end] = text('broken').split('As it is, a launch would fail\n');
  assert.deepEqual(
    end?.trimEnd().split('\n'),
    (broken.problems as string[]).map((problem) => `  ${problem}`),
  );
  const { status, stderr } = stack.launch('shop/web/broken');
  assert.equal(status, 77, stderr);
  assert.ok(stderr.includes(broken.problems[0]), stderr);
});

describe('no value is told', () => {
  for (const service of ['nginx', 'bare', 'templated', 'restricted', 'alone', 'broken'])
    test(service, () => {
      for (const shown of [text(service), JSON.stringify(plan(service))])
        for (const [what, value] of Object.entries(values)) assert.ok(!shown.includes(value), what);
    });
});

test('no certificate is issued for it', () => {
  const issued = () => {
    const store = new DatabaseSync(join(stack.directory, 'cas', 'cas.db'), { readOnly: true });
    const row = store.prepare('SELECT count(*) AS number FROM issued').get();
    store.close();
    return Number(row?.number);
  };
  const before = issued();
  assert.deepEqual(plan('certified').environment[0].sources, [secret('own')]);
  assert.equal(issued(), before);
  const { status, stderr } = stack.launch('shop/web/certified');
  assert.equal(status, 0, stderr);
  assert.ok(issued() > before);
});

test('people read it as a text', () => {
  assert.equal(
    text('nginx'),
    `What a launch of shop/web/nginx would do, as its policy is now:

Program
  /usr/sbin/nginx, with a SHA-256 that the policy names
  It runs as user www-data, with the group that www-data has, in /srv, with umask 0027.
  The launcher stays as its parent.

Arguments
  1  text in the policy
  2  text in the policy + argument 1 that the host gives
  3  secret password
  4  text in the policy + secret bytes:hex + argument 2 that the host gives

Environment, with no other variables
  URL    text in the policy + secret password + secret theirs (imported from shop/vault)
  EMPTY  text in the policy
  LANG   variable LANG of the host

Folders that are made
  /run/tls  mode 0750, owner www-data, group ssl-cert; a generation: its files change at once
  /run/web  mode 0700, owner 33, group as the program

Files that are written
  /run/tls/private/key.pem
      mode 0400, owner root, group as the program; in the generation /run/tls
      from /in/key: secret key:pem
  /proc/self/fd/7, inherited as descriptor 7
      mode 0600, owner www-data, group as the program
      from /in/mixed: text in the policy + secret same:hex (imported from shop/vault) + secret password
  /run/web/page
      mode 0600, owner www-data, group 44
      from /in/page: a template on the launcher's host

Injected files that are not used, and so not sent
  /in/unused  text in the policy + secret gone (imported from shop/vault, where it is no-more; UNAVAILABLE)

Secrets that templates on the host may use
  all of the session's, but those that decide over launches

Supervision
  When what was given changes, files are written anew, and /bin/notify is run, with 2 arguments.
  Changes within 100ms count as one. It waits up to 1 min more, at random.
  The files stay when the program has ended.
  Released secrets are kept out of what the program prints.
`,
  );
  assert.match(
    text('bare'),
    /\/bin\/true, which is not checked.*\n {2}It runs as the launcher's user, with the launcher's group, in the folder it is launched in\.\n.*\n\nEnvironment\n {2}empty\n$/,
  );
  assert.match(text('certified'), /started again\.\n {2}To end it, SIGTERM is sent, and SIGKILL after 10s\./);
});

test('it is for those who may read the session', () => {
  const codeOf = (...args: string[]) =>
    /Code: (\w+)/.exec(stack.tryScone('launch', 'plan', ...args).stderr)?.[1];
  assert.equal(codeOf('shop/web/none'), 'SERVICE_NOT_FOUND');
  assert.equal(codeOf('shop/none/nginx'), 'SESSION_NOT_FOUND');
  for (const wrong of ['nginx', '/', 'a//b', 'a/b@123456']) assert.equal(codeOf(wrong), 'USAGE', wrong);
  const state = JSON.parse(readFileSync(join(stack.env.HOME ?? '', '.cas', 'config.json'), 'utf8'));
  const stranger = join(stack.files, 'stranger.json');
  writeFileSync(stranger, JSON.stringify({ ...state, identity: undefined }), { mode: 0o600 });
  const { status, stdout, stderr } = stack.tryScone('-c', stranger, 'launch', 'plan', 'shop/web/nginx');
  assert.deepEqual([status, stdout], [77, '']);
  assert.match(stderr, /Code: ACCESS_DENIED/);
  assert.doesNotMatch(stderr, /nginx\/|\/run\/|password/);
});

test('the schema of its configuration is printed', () => {
  const schema = JSON.parse(stack.scone('launch', 'schema'));
  assert.deepEqual(Object.keys(schema.properties).slice(0, 2), ['program', 'sha256']);
  assert.deepEqual(JSON.parse(stack.scone('launch', 'schema', '--json')), schema);
});
