import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oneAtATime, takeTurns } from '../../src/platform/in-turn.ts';

const pause = (milliseconds: number) => {
  const until = performance.now() + milliseconds;
  while (performance.now() < until);
};

test('whoever has much to do has others wait for one piece of it', async () => {
  const inTurn = takeTurns<string>(1);
  const order: string[] = [];
  const work = (who: string) =>
    inTurn(who, () => {
      pause(2);
      order.push(who);
    });
  const all = [...Array.from({ length: 50 }, () => work('busy')), work('other'), work('third')];
  await Promise.all(all);
  assert.ok(order.indexOf('other') <= 2 && order.indexOf('third') <= 3, `${order}`);
  assert.equal(order.length, 52);
});

test('between rounds others are served', async () => {
  const inTurn = takeTurns<number>(1);
  let rounds = 0;
  let isOver = false;
  const count = () => {
    rounds++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  await Promise.all(Array.from({ length: 20 }, () => inTurn(0, () => pause(2))));
  isOver = true;
  assert.ok(rounds >= 19, `${rounds}`);
});

test('work that fails ends nobody else’s', async () => {
  const inTurn = takeTurns<number>(1);
  const failing = [1, 2, 3].map((who) =>
    inTurn(who, () => {
      throw new Error(`of ${who}`);
    }),
  );
  const results = await Promise.allSettled([...failing, inTurn(4, () => 'done')]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected', 'rejected', 'fulfilled'],
  );
  assert.equal(await inTurn(1, () => 'again'), 'again');
});

test('of works that take long, one is done at a time, in turn by whom it is for', async () => {
  const inTurn = oneAtATime();
  const order: string[] = [];
  let running = 0;
  const work = (who: string) =>
    inTurn(async () => {
      assert.equal(++running, 1);
      await new Promise((next) => setImmediate(next));
      order.push(who);
      running--;
    }, who);
  const failing = inTurn(() => Promise.reject(new Error('no')), 'busy');
  const all = [...Array.from({ length: 20 }, () => work('busy')), work('other')];
  await assert.rejects(failing, /no/);
  await Promise.all(all);
  assert.ok(order.indexOf('other') <= 1, `${order}`);
  assert.equal(await inTurn(async () => 'again'), 'again');
});
