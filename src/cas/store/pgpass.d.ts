/** What is used of a library that comes without types. */
declare module 'pgpass' {
  interface Connection {
    host: string;
    port: number;
    database: string;
    user: string;
  }
  export default function pgpass(connection: Connection, done: (password: string | undefined) => void): void;
}
