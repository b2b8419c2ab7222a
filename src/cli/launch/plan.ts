import * as v from 'valibot';
import { formatConfigId } from '../../policy/names.ts';
import { printable } from '../../protocol/refusal.ts';
import { type NetworkOptions, openCas } from '../connect.ts';
import type { Output } from '../output.ts';
import { readServiceName, servicePath } from '../session/names.ts';

const orNull = v.nullable(v.string());
const secretSource = v.object({
  from: v.literal('secret'),
  secret: v.string(),
  format: v.string(),
  import: v.nullable(v.object({ session: v.string(), secret: v.string(), cas: orNull })),
  unavailable: orNull,
});
const source = v.variant('from', [
  v.object({ from: v.literal('policy') }),
  secretSource,
  v.object({ from: v.literal('host-argument'), argument: v.number() }),
  v.object({ from: v.literal('host-variable'), variable: v.string() }),
  v.object({ from: v.literal('host-file'), path: v.string() }),
]);
const sources = v.array(source);
const ownership = { mode: v.string(), owner: orNull, group: orNull };
const launchPlan = v.object({
  session: v.string(),
  service: v.string(),
  configuration: v.nullable(v.picklist(['policy', 'host'])),
  program: orNull,
  sha256: v.boolean(),
  user: orNull,
  group: orNull,
  umask: orNull,
  pwd: orNull,
  arguments: v.array(v.object({ number: v.number(), sources })),
  environment: v.array(v.object({ name: v.string(), sources })),
  directories: v.array(v.object({ path: v.string(), ...ownership, generation: v.boolean() })),
  files: v.array(
    v.object({
      from: v.string(),
      to: v.string(),
      fd: v.nullable(v.number()),
      ...ownership,
      generation: orNull,
      sources,
    }),
  ),
  otherFiles: v.array(v.object({ from: v.string(), sources })),
  providedSecrets: v.nullable(v.array(secretSource)),
  supervise: v.nullable(
    v.object({
      onChange: v.union([
        v.picklist(['restart', 'files']),
        v.object({ signal: v.string() }),
        v.object({ command: v.string(), arguments: v.number() }),
      ]),
      killSignal: v.string(),
      killTimeout: v.string(),
      splay: orNull,
      debounce: v.string(),
      removeFiles: v.boolean(),
      redact: v.boolean(),
    }),
  ),
  problems: v.array(v.string()),
});
type Plan = v.InferOutput<typeof launchPlan>;
type Source = v.InferOutput<typeof source>;
type SecretSource = v.InferOutput<typeof secretSource>;
type Supervision = NonNullable<Plan['supervise']>;

/** `scone launch plan SESSION/SERVICE`: says what a launch of the service would do, and where everything comes from. */
export async function planLaunch(text: string, options: NetworkOptions): Promise<Output> {
  const name = readServiceName(text);
  const cas = await openCas(options);
  const plan = await cas.call({ method: 'GET', path: `/v1/launch-plan/${servicePath(name)}` }, launchPlan);
  const lines = [
    `What a launch of ${formatConfigId(name)} would do, as its policy is now:`,
    ...sections(plan).flatMap(([title, ...rest]) => ['', title, ...rest.map((line) => `  ${line}`)]),
  ];
  return { text: lines.map((line) => `${printable(line)}\n`).join(''), json: plan };
}

/** A title, and the lines below it; those that have nothing to say are left out. */
function sections(plan: Plan): [title: string, ...lines: string[]][] {
  const all: [title: string, lines: string[]][] = [
    ['Program', describeProgram(plan)],
    ['Arguments', aligned(plan.arguments.map(({ number, sources }) => [String(number), describe(sources)]))],
    plan.environment.length === 0
      ? ['Environment', ['empty']]
      : [
          'Environment, with no other variables',
          aligned(plan.environment.map(({ name, sources }) => [name, describe(sources)])),
        ],
    [
      'Folders that are made',
      aligned(
        plan.directories.map((it) => [
          it.path,
          `${describeOwnership(it)}${it.generation ? '; a generation: its files change at once' : ''}`,
        ]),
      ),
    ],
    [
      'Files that are written',
      plan.files.flatMap((file) => [
        file.fd === null ? file.to : `${file.to}, inherited as descriptor ${file.fd}`,
        `    ${describeOwnership(file)}${file.generation === null ? '' : `; in the generation ${file.generation}`}`,
        `    from ${file.from}: ${describe(file.sources)}`,
      ]),
    ],
    [
      plan.configuration === 'host'
        ? "Files that the host's configuration may have written"
        : 'Injected files that are not used, and so not sent',
      aligned(plan.otherFiles.map(({ from, sources }) => [from, describe(sources)])),
    ],
    ['Secrets that templates on the host may use', describeProvided(plan.providedSecrets)],
    ['Supervision', plan.supervise ? describeSupervision(plan.supervise) : []],
    ['As it is, a launch would fail', plan.problems],
  ];
  return all.flatMap(([title, lines]) =>
    lines.length === 0 ? [] : [[title, ...lines] satisfies [string, ...string[]]],
  );
}

function describeProgram({ configuration, program, sha256, user, group, umask, pwd, supervise }: Plan) {
  const place = pwd === null ? 'the folder it is launched in' : pwd;
  if (program === null)
    return [
      ...(configuration === 'host'
        ? [
            "/etc/envcas/config.yaml on the launcher's host says which, as whom, and what is written where:",
            'the policy leaves that to the host.',
          ]
        : []),
      ...(pwd === null ? [] : [`It starts in ${pwd}.`]),
    ];
  return [
    `${program}${sha256 ? ', with a SHA-256 that the policy names' : ', which is not checked: the policy names no SHA-256'}`,
    `It runs as ${user === null ? "the launcher's user" : `user ${user}`}, with ${describeGroup(user, group)}, in ${place}${umask === null ? '' : `, with umask ${umask}`}.`,
    supervise
      ? 'The launcher stays as its parent.'
      : "It takes the launcher's place, and is told of no change.",
  ];
}

function describeGroup(user: string | null, group: string | null): string {
  if (group !== null) return `group ${group}`;
  return user === null ? "the launcher's group" : `the group that ${user} has`;
}

type Ownership = Pick<Plan['files'][number], 'mode' | 'owner' | 'group'>;

/** What is null has the program's. */
function describeOwnership({ mode, owner, group }: Ownership): string {
  return `mode ${mode}, owner ${owner ?? 'as the program'}, group ${group ?? 'as the program'}`;
}

function describe(sources: Source[]): string {
  return sources.map(describeSource).join(' + ');
}

function describeSource(source: Source): string {
  switch (source.from) {
    case 'policy':
      return 'text in the policy';
    case 'secret':
      return describeSecret(source);
    case 'host-argument':
      return `argument ${source.argument} that the host gives`;
    case 'host-variable':
      return `variable ${source.variable} of the host`;
    case 'host-file':
      return "a template on the launcher's host";
  }
}

function describeSecret({ secret, format, import: imported, unavailable }: SecretSource): string {
  const details = [
    ...(imported ? [describeImport(secret, imported)] : []),
    ...(unavailable === null ? [] : ['UNAVAILABLE']),
  ];
  return `secret ${secret}${format}${details.length === 0 ? '' : ` (${details.join('; ')})`}`;
}

function describeImport(secret: string, { session, secret: name, cas }: NonNullable<SecretSource['import']>) {
  const place = `imported from ${session}${cas === null ? '' : ` on the CAS at ${cas}`}`;
  return name === secret ? place : `${place}, where it is ${name}`;
}

function describeProvided(secrets: Plan['providedSecrets']): string[] {
  return secrets?.map(describeSecret) ?? ["all of the session's, but those that decide over launches"];
}

function describeSupervision({ onChange, ...rest }: Supervision): string[] {
  const { killSignal, killTimeout, splay, debounce, removeFiles, redact } = rest;
  return [
    `When what was given changes, files are written anew, and ${describeChange(onChange)}.`,
    ...(onChange === 'restart'
      ? [`To end it, ${killSignal} is sent, and SIGKILL after ${killTimeout}.`]
      : []),
    `Changes within ${debounce} count as one.${splay === null ? '' : ` It waits up to ${splay} more, at random.`}`,
    removeFiles
      ? 'The files are removed once the program has ended.'
      : 'The files stay when the program has ended.',
    redact
      ? 'Released secrets are kept out of what the program prints.'
      : 'What the program prints is not looked at.',
  ];
}

function describeChange(onChange: Supervision['onChange']): string {
  if (onChange === 'restart') return 'the program is started again';
  if (onChange === 'files') return 'the program finds that out by itself';
  if ('signal' in onChange) return `the program is sent ${onChange.signal}`;
  const { command, arguments: count } = onChange;
  return `${command} is run${count === 0 ? '' : `, with ${count} argument${count === 1 ? '' : 's'}`}`;
}

/** Rows of two columns. */
function aligned(rows: [string, string][]): string[] {
  const width = rows.reduce((most, [first]) => Math.max(most, first.length), 0);
  return rows.map(([first, second]) => `${first.padEnd(width)}  ${second}`);
}
