import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, test } from 'node:test';
import { Ajv, type ErrorObject } from 'ajv';
import fc from 'fast-check';
import { parseDocument, stringify } from 'yaml';
import { launcherJsonSchema, sessionJsonSchema } from '../../src/policy/json-schema.ts';
import { parseLauncherConfiguration } from '../../src/policy/launcher-configuration.ts';
import { formatPath, InvalidText } from '../../src/policy/problem.ts';
import { parseSession } from '../../src/policy/session.ts';
import { files, publicSession, skip, variables } from '../support/public-sessions.ts';
import { sessionText, variablesFrom } from './support.ts';

const schema = sessionJsonSchema();
const launcherSchema = launcherJsonSchema();
const ajv = new Ajv({
  strict: true,
  allErrors: true,
  allowUnionTypes: true,
  keywords: ['patternErrorMessage'],
});
const validateSession = ajv.compile(schema);
const validateLauncher = ajv.compile(launcherSchema);

/** Where an editor marks something: `services[0].nam`, as in a Problem. */
function marks(text: string, validate = validateSession): string[] {
  const document = parseDocument(text, { version: '1.2' });
  assert.deepEqual(document.errors, []);
  return validate(document.toJS()) ? [] : (validate.errors ?? []).map(placeOf);
}

function placeOf({ instancePath, params }: ErrorObject): string {
  const steps = instancePath.split('/').slice(1);
  const key = params.additionalProperty ?? params.missingProperty ?? params.propertyName;
  return formatPath(
    [...steps, ...(key ? [key] : [])].map((step) => (/^\d+$/.test(step) ? Number(step) : step)),
  );
}

const accepted = (text: string, values?: (name: string) => string | undefined) => {
  assert.deepEqual(marks(text), []);
  assert.deepEqual(marks(parseSession(text, values).text), []);
};

describe('sessions have no marks, with template variables and with their values: examples', () => {
  const root = resolve(import.meta.dirname, '../..');
  const examples = globSync('examples/**/*.yaml', { cwd: root });
  assert.ok(examples.length >= 4);
  const values = variablesFrom({
    SESSION: 'session',
    SERVER_SESSION: 'server',
    CLIENT_SESSION: 'client',
    MRENCLAVE: '1234567890'.repeat(6).concat('1234'),
    OTP_SECRET: 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ',
    DIR: '/tmp/out',
    PORT: '4433',
    APP: '/srv/app.py',
    RUN_AS: 'www-data',
    USER_ID: '1000',
    DBA: 'postgres',
    PGHOST: '/run/postgresql',
    PGPORT: '5432',
  });
  for (const file of examples) test(file, () => accepted(readFileSync(join(root, file), 'utf8'), values));
});

describe('sessions have no marks, with template variables and with their values: public', { skip }, () => {
  for (const file of files) test(file, () => accepted(publicSession(file), variables));
});

/** Where the CAS finds something wrong. */
function problemsOf(text: string, parse: (text: string) => unknown = parseSession): string[] {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof InvalidText) return error.problems.map(({ path }) => path);
    throw error;
  }
  return [];
}

const digits = '1234567890'.repeat(6).concat('1234');
const secret = (rest: string) => sessionText(`secrets: [{name: a, ${rest}}]`);
const service = (rest: string) => sessionText(`services: [{name: a, ${rest}}]`);
const image = (rest: string) => sessionText(`images: [{name: a, ${rest}}]`);

describe('no marks where the CAS takes it, quoted or not', () => {
  for (const [what, text] of [
    ['a version that is a number', 'name: s\nversion: 0.3'],
    ['names that are a number, a boolean', 'name: 1\nversion: "0.3"\nsecrets: [{name: true, kind: ascii}]'],
    ['no predecessor', sessionText('predecessor: ~')],
    ['nothing in the place of a predecessor', sessionText('predecessor:')],
    ['a predecessor of digits', sessionText(`predecessor: ${digits}`)],
    ['a salt of digits', sessionText(`salt: ${digits.slice(0, 32)}`)],
    ['a measurement of digits', service(`attestation: {mrenclave: ${digits}}`)],
    ['measurements of digits', service(`attestation: [{mrenclave: [${digits}, ${'f'.repeat(64)}]}]`)],
    ['a signer', service(`attestation: {signer: {mrsigner: ${digits}, isvprodid: 1, isvsvn_min: "2"}}`)],
    ['a size', secret('kind: binary, size: 20')],
    ['a quoted size', secret('kind: binary, size: "20"')],
    ['a boolean', secret('kind: ascii, export_public: true')],
    ['a quoted boolean', secret('kind: ascii, export_public: "True"')],
    ['an octal mode', image('injection_files: [{path: /a, permission: 0o100}]')],
    ['a decimal mode', image('injection_files: [{path: /a, permission: 700}, /b]')],
    ['an environment', service('environment: {A: 1, B: true, C: ~, D: 0.5, E: "", "@@F": }')],
    ['no environment', service('environment:')],
    ['a command in words', service('command: [a, 1, true]')],
    ['a value that is a number', secret('kind: ascii, value: 12')],
    ['a fragment', secret('kind: config-fragment, value: {a: [1, {b: ~}]}')],
    ['an imported secret', secret('import: {session: ../b, secret: c}')],
    ['an imported secret of a kind', secret('kind: x509, import: {session: b, secret: c}')],
    ['exports', secret('kind: ascii, export: [/session=b, {namespace: .}]')],
    [
      'alternative names',
      sessionText(
        'secrets:',
        '- {name: k, kind: private-key}',
        '- {name: c, kind: x509, private_key: k, san: "dns:a"}',
      ),
    ],
    ['storage', sessionText('secret_config: {store_in: !cas }')],
    ['storage elsewhere', sessionText('secret_config: {store_in: !akv {token: a, vault: b}}')],
    ['principals', sessionText('access_policy: {read: ANY, update: [CREATOR]}')],
    [
      'rules',
      sessionText('access_policy: {update: {require-all: [CREATOR, {require-at-least-1: [CREATOR]}]}}'),
    ],
    [
      'a variable for all of it',
      sessionText('access_policy: $$SCONE::p$$', 'secrets: [{name: p, kind: config-fragment, value: {}}]'),
    ],
    [
      'variables for parts',
      sessionText(
        'access_policy: {read: $$SCONE::p$$}',
        'services: [{name: a, attestation: $$SCONE::p$$, platforms: [$$SCONE::p$$]}]',
        'secrets: [{name: p, kind: config-fragment, value: {}}]',
      ),
    ],
  ] as const)
    test(what, () => accepted(text));
});

test('no marks where a template variable stands in the place of a pattern, a number, a boolean or a choice', () => {
  const values = variablesFrom({
    HASH: digits,
    SIZE: '20',
    YES: 'true',
    TYPE: 'P-256',
    MODE: 'none',
    PATH: '/srv',
    OLD: '~',
  });
  accepted(
    [
      'name: s/${MODE}',
      'version: 0.3.10',
      'predecessor: $OLD',
      'security: {attestation: {mode: $MODE}}',
      'services: [{name: $MODE, pwd: $PATH, attestation: {mrenclave: [$HASH]}}]',
      'secrets:',
      '- {name: a, kind: binary, size: $SIZE, export_public: "${YES}"}',
      '- {name: b, kind: private-key, key_type: $TYPE}',
    ].join('\n'),
    values,
  );
});

/** What is wrong, the text, and where. */
const wrong: [string, string, string][] = [
  ['an unknown key', sessionText('servces: []'), 'servces'],
  ['an unknown key of a service', service('comand: a'), 'services[0].comand'],
  ['an unknown key of a secret', secret('kind: ascii, sze: 5'), 'secrets[0].sze'],
  ['a key of another kind of secret', secret('kind: ascii, key_type: P-256'), 'secrets[0].key_type'],
  ['an unknown key of a variant', service('attestation: {mrenclav: a}'), 'services[0].attestation.mrenclav'],
  ['an unknown operation', sessionText('access_policy: {raed: ANY}'), 'access_policy.raed'],
  ['no name', 'version: "0.3"', 'name'],
  ['a service without a name', sessionText('services: [{pwd: /}]'), 'services[0].name'],
  ['a version that there is not', 'name: s\nversion: "0.4"', 'version'],
  ['a name with a space', 'name: a b\nversion: "0.3"', 'name'],
  ['an escaped dollar sign in a name', 'name: \\$a\nversion: "0.3"', 'name'],
  ['a short predecessor', sessionText('predecessor: abc'), 'predecessor'],
  ['a short measurement', service('attestation: {mrenclave: abc}'), 'services[0].attestation.mrenclave'],
  ['a short measurement in a list', service('mrenclaves: [abc]'), 'services[0].mrenclaves[0]'],
  ['a mapping where a list belongs', sessionText('services: {name: a}'), 'services'],
  ['a list where a mapping belongs', 'name: s\nversion: "0.3"\nsecurity: []', 'security'],
  ['a text where a mapping belongs', sessionText('services: [a]'), 'services[0]'],
  ['null where a text belongs', service('pwd:'), 'services[0].pwd'],
  ['a number where a path belongs', service('pwd: 5'), 'services[0].pwd'],
  ['a relative path', service('pwd: srv'), 'services[0].pwd'],
  [
    'a misspelled mode',
    'name: s\nversion: "0.3"\nsecurity: {attestation: {mode: hardwere}}',
    'security.attestation.mode',
  ],
  [
    'a misspelled weakness',
    sessionText('').replace('mode: none', 'tolerate: [debugmode]'),
    'security.attestation.tolerate[0]',
  ],
  ['a misspelled key type', secret('kind: private-key, key_type: P256'), 'secrets[0].key_type'],
  [
    'a misspelled policy',
    image('volumes: [{name: a, path: /a, update_policy: none}]'),
    'images[0].volumes[0].update_policy',
  ],
  ['a secret of an unknown kind', secret('kind: asci'), 'secrets[0].kind'],
  ['a secret of no kind', sessionText('secrets: [{name: a}]'), 'secrets[0].kind'],
  ['a size of nothing', secret('kind: ascii, size: 0'), 'secrets[0].size'],
  ['half a size', secret('kind: ascii, size: 1.5'), 'secrets[0].size'],
  ['a size in words', secret('kind: ascii, size: many'), 'secrets[0].size'],
  ['a number for a boolean', secret('kind: ascii, export_public: 1'), 'secrets[0].export_public'],
  ['a boolean of YAML 1.1', secret('kind: ascii, export_public: yes'), 'secrets[0].export_public'],
  ['half an import', secret('import: {session: b}'), 'secrets[0].import.secret'],
  [
    'a mode of no octal digits',
    image('injection_files: [{path: /a, permission: rwx}]'),
    'images[0].injection_files[0].permission',
  ],
  ['a file without a path', image('injection_files: [{content: a}]'), 'images[0].injection_files[0].path'],
  ['a name without its type', secret('kind: x509, private_key: a, san: localhost'), 'secrets[0].san'],
  [
    'a rule for reading',
    sessionText('access_policy: {read: {require-all: [CREATOR]}}'),
    'access_policy.read',
  ],
  [
    'a misspelled rule',
    sessionText('access_policy: {update: [{require-al: [CREATOR], require-all: [CREATOR]}]}'),
    'access_policy.update[0]',
  ],
  [
    'a rule for nobody',
    sessionText('access_policy: {update: {require-all: []}}'),
    'access_policy.update.require-all',
  ],
  [
    'a signer without a key',
    sessionText('access_policy: {update: {signer: []}}'),
    'access_policy.update.signer',
  ],
];

describe('a mark where the CAS refuses it', () => {
  for (const [what, text, place] of wrong)
    test(what, () => {
      const problems = problemsOf(text);
      assert.ok(
        problems.some((path) => path.startsWith(place)),
        `CAS: ${problems}`,
      );
      const marked = marks(text);
      assert.ok(marked.includes(place), `editor: ${marked}`);
    });
});

test('what the CAS takes has no marks, whatever is changed in a session', () => {
  const fresh = () =>
    parseDocument(
      [
        'name: s',
        'version: 0.3.10',
        'predecessor: ~',
        'access_policy: {read: [ANY], update: {require-at-least-1: [CREATOR]}}',
        'security: {attestation: {mode: none, tolerate: [debug-mode], ignore_advisories: "*"}}',
        'services:',
        '- {name: a, command: a b, environment: {A: b}, pwd: /, attestation: [{mrenclave: [$$SCONE::f$$]}]}',
        'images: [{name: i, injection_files: [/a, {path: /b, content: c, permission: 700}]}]',
        'secrets:',
        '- {name: b, kind: binary, size: 20, export: {session: c}}',
        '- {name: f, kind: config-fragment, value: {}}',
        '- {name: c, import: {session: d, secret: e}}',
        'volumes: [{name: v, files: encrypted}]',
      ].join('\n'),
    ).toJS();
  assert.deepEqual(problemsOf(stringify(fresh())), []);
  const places: (string | number)[][] = [];
  const walk = (value: unknown, path: (string | number)[]) => {
    places.push(path);
    if (Array.isArray(value)) for (const [index, item] of value.entries()) walk(item, [...path, index]);
    else if (typeof value === 'object' && value !== null)
      for (const [key, item] of Object.entries(value)) walk(item, [...path, key]);
  };
  walk(fresh(), []);
  const value = fc.oneof(
    fc.constantFrom(
      null,
      true,
      0,
      1,
      20,
      700,
      0.3,
      1.5,
      -1,
      'ANY',
      'true',
      'none',
      '/',
      'P-256',
      digits,
      '$$SCONE::f$$',
    ),
    fc.constantFrom([], {}, [[]], ['a'], [null], { name: 'x' }, { session: 'y' }, { require: 'z' }),
    fc.string({ maxLength: 8 }),
  );
  fc.assert(
    fc.property(fc.constantFrom(...places.slice(1)), value, (path, changed) => {
      const session = fresh();
      const parent = path.slice(0, -1).reduce((at, step) => at[step], session);
      parent[path.at(-1) ?? ''] = changed;
      const text = stringify(session);
      if (marks(text).length > 0) assert.notDeepEqual(problemsOf(text), [], text);
    }),
    { numRuns: 1000 },
  );
});

const launcher = (...lines: string[]) => ['program: /p', ...lines].join('\n');
const target = (rest: string) => launcher(`injection_files: [{from: a, ${rest}}]`);
const supervise = (rest: string) => launcher(`supervise: {${rest}}`);

describe("a launcher's configuration has no marks where the CAS takes it, quoted or not", () => {
  for (const text of [
    launcher(),
    launcher(`sha256: ${digits}`, 'user: 33', 'group: "33"', 'umask: 0027', 'pwd: /'),
    launcher(`sha256: [${digits}, ${'a'.repeat(64)}]`, 'user: www-data'),
    launcher('directories: [{path: /run/a, mode: 1777, generation: true}, {path: /run/b, mode: "750"}]'),
    target('to: {fd: 3}'),
    ...['640', '0640', '0o640', '777', '"0640"'].map((mode) => target(`to: /a, mode: ${mode}, owner: 0`)),
    launcher('injected_file: [{from: a, to: $DIR/a}]'),
    supervise('on_change: restart, splay: 1h, remove_files: true, redact: "false"'),
    supervise('on_change: {signal: SIGHUP}, kill_signal: SIGINT'),
    supervise('on_change: {command: [/bin/x, 1, true]}, kill_timeout: 1m'),
  ])
    test(text.slice(text.indexOf('\n') + 1), () => {
      assert.deepEqual(marks(text, validateLauncher), []);
      const filled = text.replace('$DIR', '/run');
      assert.deepEqual(problemsOf(filled, parseLauncherConfiguration), []);
    });
});

describe("a mark where the CAS refuses a launcher's configuration", () => {
  for (const [text, place] of [
    ['injection_files: []', 'program'],
    [launcher('umsak: 0027'), 'umsak'],
    [launcher('pwd: srv'), 'pwd'],
    [launcher('user: a b'), 'user'],
    [launcher('umask: rwx'), 'umask'],
    [launcher(`sha256: [${digits}, x]`), 'sha256[1]'],
    [launcher('directories: [{path: /run/}]'), 'directories[0].path'],
    [launcher('directories: [{path: /run/../a}]'), 'directories[0].path'],
    [launcher('directories: [{path: /a, generation: yes}]'), 'directories[0].generation'],
    [target('to: a'), 'injection_files[0].to'],
    [target('to: {fd: 2}'), 'injection_files[0].to.fd'],
    [target('to: /a, mode: "4755"'), 'injection_files[0].mode'],
    [target('mode: 0640'), 'injection_files[0].to'],
    [supervise('on_chnge: files'), 'supervise.on_chnge'],
    [supervise('on_change: restrat'), 'supervise.on_change'],
    [supervise('on_change: {signal: HUP}'), 'supervise.on_change.signal'],
    [supervise('kill_signal: 15'), 'supervise.kill_signal'],
    [supervise('redact: on'), 'supervise.redact'],
  ] as const)
    test(text.slice(text.indexOf('\n') + 1), () => {
      const problems = problemsOf(text, parseLauncherConfiguration);
      assert.ok(problems.includes(place), `CAS: ${problems}`);
      const marked = marks(text, validateLauncher);
      assert.ok(marked.includes(place), `editor: ${marked}`);
    });
});

test('editors explain every key', () => {
  const bare: string[] = [];
  const walk = (node: unknown, path: string) => {
    if (typeof node !== 'object' || node === null) return;
    const { properties = {}, additionalProperties } = node as {
      properties?: object;
      additionalProperties?: unknown;
    };
    for (const [key, property] of Object.entries(properties))
      if (additionalProperties === false && !property.description) bare.push(`${path}/${key}`);
    for (const [key, child] of Object.entries(node)) walk(child, `${path}/${key}`);
  };
  walk(schema, '');
  walk(launcherSchema, '');
  assert.deepEqual(bare, []);
});
