import { isIP, isIPv6 } from 'node:net';
import { failure } from '../errors.ts';

/** A host name or IP address, and a TCP port. */
export interface Address {
  host: string;
  port: number;
}

/** Ports of a CAS: launchers come to the first, people and their tools to the second, and whoever watches to the third. */
export const defaultPorts = { enclave: 18765, api: 8081, metrics: 9464 } as const;

/** Where the LAS of a host listens unless told otherwise. */
export const defaultLasSocket = '/run/scone/las.sock';

/**
 * Reads HOST, HOST:PORT, IPV6 or [IPV6]:PORT.
 * @param name where the text comes from, for the error
 * @throws Failure ADDRESS_MALFORMED
 */
export function parseAddress(text: string, defaultPort: number, name: string): Address {
  const named = /^([A-Za-z0-9][A-Za-z0-9._-]{0,253})(?::(\d{1,5}))?$/.exec(text);
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text);
  const [, host = text, digits] = named ?? bracketed ?? [];
  const port = digits === undefined ? defaultPort : Number(digits);
  if ((!named && !isIPv6(host)) || port < 1 || port > 65535)
    throw failure('ADDRESS_MALFORMED', { name, detail: JSON.stringify(text) });
  return { host, port };
}

export function formatAddress({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** A port from an environment variable, or the default. */
export function portSetting(env: NodeJS.ProcessEnv, name: string, defaultPort: number): number {
  const text = env[name];
  if (!text) return defaultPort;
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65535)
    throw failure('ADDRESS_MALFORMED', { name, detail: `${JSON.stringify(text)} is not a port` });
  return port;
}

/** The Unix socket that SCONE_LAS_ADDR means: a path is one; a host, or nothing, is this host's LAS. */
export function lasSocket(setting: string | undefined): string {
  return setting?.includes('/') ? setting : defaultLasSocket;
}

/**
 * Connection options for a host. `localhost` is 127.0.0.1 (RFC 6761 §6.3) and is not sent as server name: to
 * start a resolver, or to check a name for being an IPv6 address, would each take a tenth of a launch.
 */
export function connectOptions({ host, port }: Address): { host: string; port: number; servername?: string } {
  if (host === 'localhost') return { host: '127.0.0.1', port };
  // RFC 6066 §3: an IP address is no server name.
  return isIP(host) ? { host, port } : { host, port, servername: host };
}
