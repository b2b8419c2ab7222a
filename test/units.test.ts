import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { start } from './launcher/support.ts';
import { temporaryFolder } from './support/leave-nothing.ts';
import { executables, lacking, missing } from './support/stack.ts';

/**
 * The units that packaging/install.sh installs, started by systemd itself: in a container with a network of its own, on this
 * machine's files, of which nothing is changed.
 */
const root = resolve(import.meta.dirname, '..');

const trial = `set -eu
as_user() { HOME=/tmp/home setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
wait_for() { for try in $(seq 3000); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; "$@"; }
ready() { curl -sf http://127.0.0.1:9464/readyz; }
said() { journalctl --unit "$1" --output cat | sed -n "s/^$2: //p" | tail -1; }
launch() { as_user env SCONE_CAS_ADDR=localhost SCONE_CONFIG_ID=trial/web SCONE_CAS_KEY="$key" envcas; }

sh /envcas/packaging/install.sh
systemctl daemon-reload
store="--dir /var/lib/scone-cas --store sqlite:/var/lib/scone-cas/cas.db"
scone cas init $store --shares 2/3 >/tmp/shares
for share in 1 2 3; do sed -n "$((share + 2))p" /tmp/shares >/tmp/share-$share; chmod 600 /tmp/share-$share; done
systemctl enable --now envcas-las envcas-cas-las envcas-cas
wait_for curl -sf http://127.0.0.1:9464/healthz
trust="--mrenclave $(sha256sum /usr/local/bin/scone | cut -d' ' -f1)"
trust="$trust --trusted-platform $(said envcas-cas-las 'LAS key (platform)')"
trust="$trust --only_for_testing-debug --only_for_testing-ignore-signer"
for share in 1 3; do wait_for scone cas unseal localhost $trust --share --secret-file /tmp/share-$share; done
wait_for ready
systemctl is-active envcas-las envcas-cas-las envcas-cas

mkdir -m 777 /tmp/home
cd /tmp/home
key=$(said envcas-cas 'CAS key hash')
cat >trial.yaml <<END
name: trial
version: "0.3.10"
security:
  attestation:
    tolerate: [debug-mode]
    require: [secure-execution, root-owned-code]
    trusted_scone_qe_pubkeys: [$(said envcas-las 'LAS key (platform)')]
services:
  - name: web
    image_name: image
    mrenclaves: [$(sha256sum /usr/local/bin/envcas | cut -d' ' -f1)]
    command: [envcas, 'with \\$\\$SCONE::password\\$\\$']
    pwd: /
images: [{name: image, injection_files: [{path: /etc/envcas/config.yaml, content: "program: /bin/echo"}]}]
secrets: [{name: password, kind: ascii, size: 12}]
END
as_user scone cas attest localhost --cas-key-hash "$key" $trust
as_user scone session create trial.yaml
printf "first: %s\\n" "$(launch)"
grep --text --only-matching --max-count 1 --no-filename '"source":"uid:65534"' /var/lib/scone-cas/cas.db*

systemctl reload envcas-cas
wait_for ready
systemctl stop envcas-cas
cat /tmp/share-1 /tmp/share-2 | scone cas rekey $store --new-key-file /var/lib/scone-cas/master.key
scone cas check-store $store
systemctl start envcas-cas
wait_for ready
stat --format '%a %n' /var/lib/scone-cas/cas.db /var/lib/scone-cas/master.key

systemctl kill --signal=KILL envcas-cas envcas-las envcas-cas-las
for unit in envcas-cas envcas-las envcas-cas-las; do
  wait_for sh -c '[ "$(systemctl show --property NRestarts --value "$0")" -gt 0 ] && systemctl is-active "$0"' $unit
done
wait_for ready
systemctl is-active envcas-las envcas-cas-las envcas-cas
printf "after a crash: %s\\n" "$(launch)"

pid=$(systemctl show --property MainPID --value envcas-cas)
grep 'Max core file size' /proc/$pid/limits
systemctl stop envcas-cas envcas-las envcas-cas-las
systemctl show --property Result --value envcas-cas envcas-las envcas-cas-las
`;

const unit = `[Unit]
Requires=basic.target
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/sh /trial/trial.sh
StandardOutput=truncate:/trial/output
StandardError=inherit
TimeoutStartSec=infinity
`;

/** A container on an overlay of this machine's root folder. Where it ends, so do its mounts. */
const container = `set -e
mount --make-rprivate /
mount -t tmpfs overlay "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root
shift
exec systemd-nspawn --quiet --directory=root --register=no --keep-unit --private-network --capability=all "$@"`;

function boot(folder: string, ...more: string[]) {
  const overlay = join(folder, 'overlay');
  mkdirSync(overlay, { recursive: true });
  return start('unshare', ['--mount', 'sh', '-c', container, 'sh', overlay, ...more], {
    stdio: ['ignore', 'pipe', 'pipe'],
  }).finished;
}

test('systemd starts the units, sealed or not, and again when they end; a launch of an ordinary user is attested', {
  skip: lacking('SYS_ADMIN') || missing('systemd-nspawn', 'curl'),
}, async (t) => {
  executables();
  const folder = temporaryFolder();
  const possible = await boot(folder, 'true');
  if (possible.status !== 0) return t.skip(`no container can be made here: ${possible.stderr}`);
  mkdirSync(join(folder, 'trial'));
  writeFileSync(join(folder, 'trial/trial.sh'), trial);
  writeFileSync(join(folder, 'trial/trial.service'), unit);
  const binds = [
    `--bind=${folder}/trial:/trial`,
    `--bind-ro=${root}:/envcas`,
    `--bind-ro=${folder}/trial/trial.service:/etc/systemd/system/trial.service`,
  ];
  const { status, stdout } = await boot(folder, ...binds, '--boot', '--', '--unit=trial.service');
  const said = join(folder, 'trial/output');
  if (!existsSync(said)) return t.skip(`systemd does not start in a container here: ${stdout}`);
  const output = readFileSync(said, 'utf8');
  assert.equal(status, 0, `${output}\n${stdout}`);
  assert.equal(output.match(/^active\nactive\nactive$/gm)?.length, 2, output);
  const [, first] = /^first: with (\S{12})$/m.exec(output) ?? [];
  const [, second] = /^after a crash: with (\S{12})$/m.exec(output) ?? [];
  assert.ok(first !== undefined && first === second, output);
  assert.match(output, /^"source":"uid:65534"$/m);
  assert.match(output, /^All \d+ rows of .* are as they were written$/m);
  assert.match(output, /^600 \S+cas\.db\n600 \S+master\.key$/m);
  assert.match(output, /^Max core file size +1 +1 +bytes/m);
  assert.match(output, /^success\n\nsuccess\n\nsuccess$/m);
});
