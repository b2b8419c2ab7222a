import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readYaml } from '../../src/policy/yaml.ts';
import { problemsOf, variablesFrom } from '../policy/support.ts';

test('whoever gives a template its values makes no references, host arguments or further words of them, unless that is allowed', () => {
  const given = variablesFrom({
    ...{
      REF: '$$SCONE::admin$$',
      OLD: 'a$$PALAEMON::b$$',
      HOST: '@@2',
      WORDS: 'a b',
      QUOTE: "it's",
      PLAIN: '$5 @home',
    },
    ...{ FIRST: '$$SCO', REST: 'NE::x$$', LINE: 'envcas --all "x y"' },
  });
  const problems = (text: string) => problemsOf(() => readYaml(text, given)).join();
  for (const [text, what] of [
    ['a: $REF', /\$REF would be a variable that stands for a secret; --allow-references/],
    ['a: x${OLD}y', /\$OLD would be a variable/],
    ['a: [{b: $FIRST$REST}]', /a value of \$FIRST, \$REST would be a variable/],
    ['command: [envcas, $HOST]', /\$HOST would be an argument of the host/],
    ['command: envcas $HOST', /\$HOST would be an argument of the host/],
    ['command: envcas $WORDS', /\$WORDS would be several words/],
    ['command: envcas $QUOTE', /\$QUOTE would be several words, or a part of one/],
  ] as const) {
    assert.match(problems(text), what, text);
    assert.ok(readYaml(text, given, true));
  }
  for (const text of ['a: $HOST', 'a: $WORDS', 'command: [envcas, $WORDS, $QUOTE]', 'a: $PLAIN'])
    assert.deepEqual(readYaml(text, given).warnings, [], text);
  const [split] = readYaml('command: $LINE', given).warnings;
  assert.equal(split?.message, 'the value of $LINE is split into the words of the command');
});

test('nor parts of the configuration of the launcher, or of whom something is shared with', () => {
  const given = variablesFrom({
    PROG: '/usr/bin/id\nuser: nobody',
    COMMENT: '/usr/bin/id # b',
    QUOTED: '/bin/a", user: "nobody',
    NULL: 'null',
    PATH: '/bin/echo: x',
    PLAIN: '/bin/sh',
    IT: "it's a [value]",
    SHARED: 'vault,session_hash=00',
    HASH: 'ab'.repeat(32),
    WHERE: '/etc/envcas/config.yaml',
    ALL: 'program: /bin/sh',
  });
  const problems = (text: string) => problemsOf(() => readYaml(text, given)).join();
  const file = (content: string, path = '/etc/envcas/config.yaml') =>
    `images: [{name: i, injection_files: [{content: ${JSON.stringify(content)}, path: ${path}}]}]`;
  for (const [text, name] of [
    [file('program: $PROG'), 'PROG'],
    [file('program: $PROG', '$WHERE'), 'PROG'],
    [file('program: $COMMENT'), 'COMMENT'],
    [file('{program: "$QUOTED"}'), 'QUOTED'],
    [file('program: /bin/sh\npwd: $NULL'), 'NULL'],
    [file('program: $PATH'), 'PATH'],
    ['secrets: [{name: a, import: "/session=$SHARED"}]', 'SHARED'],
    ['secrets: [{name: a, export: ["/session=$SHARED"]}]', 'SHARED'],
    ['secrets: [{name: a, export: "$PLAIN/cas_key=a,session=b"}]', 'PLAIN'],
  ] as const) {
    assert.match(
      problems(text),
      new RegExp(`\\$${name} would be more than a value in .*--allow-references`),
      text,
    );
    assert.ok(readYaml(text, given, true));
  }
  for (const text of [
    file(
      'program: $PLAIN # for $NULL\nuser: "$PLAIN"\ninjection_files: [{to: "/tmp/$PLAIN$PLAIN", content: "$IT"}]',
    ),
    file('program: $PROG', '/etc/other'),
    file('$ALL'),
    file("program: '$PROG"),
    'secrets: [{name: a, export: "/session=$HASH,session_hash=$HASH"}]',
  ])
    assert.deepEqual(readYaml(text, given).warnings, [], text);
});
