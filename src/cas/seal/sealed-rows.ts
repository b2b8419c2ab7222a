import type { Row } from '../store/database.ts';
import type { Table } from '../store/migrations.ts';

/** Values of the CAS itself that are not sealed, since they are needed before, or say nothing. */
const CLEAR: readonly string[] = ['seal', 'moved', 'restored', 'restoring'];

/** Which columns of a row are sealed, and the place that each is bound to. */
export function sealedColumns(table: Table, row: Row): { column: string; place: string }[] {
  const text = (column: string) => {
    const value = row[column];
    return Buffer.isBuffer(value) ? value.toString('hex') : String(value);
  };
  switch (table) {
    case 'state':
      return CLEAR.includes(text('name')) ? [] : [{ column: 'value', place: `state/${text('name')}` }];
    case 'version': {
      const place = `version/${text('session')}/${text('number')}/${text('hash')}`;
      return [
        { column: 'sealed', place },
        ...(row.upload === null ? [] : [{ column: 'upload', place: `upload of ${place}` }]),
      ];
    }
    case 'issued': {
      const place = ['session', 'number', 'name', 'generation'].map(text).join('/');
      return [{ column: 'sealed', place: `certificate/${place}` }];
    }
    default:
      return [];
  }
}
