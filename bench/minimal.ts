import { connect } from 'node:tls';

/**
 * The least that a launcher with TLS can do: connect, one request, one answer, exec /bin/true.
 * Arguments: host and port.
 */
const socket = connect({
  host: process.argv[2],
  port: Number(process.argv[3]),
  minVersion: 'TLSv1.3',
  rejectUnauthorized: false,
});
socket.write('request\n');
socket.on('data', () => process.execve?.('/bin/true', ['true'], {}));
