/**
 * @returns a function that begins each work once all before it have ended, well or not
 */
export function oneAtATime(): <Result>(work: () => Promise<Result>) => Promise<Result> {
  let latest: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = latest.then(work);
    latest = result.catch(() => {});
    return result;
  };
}
