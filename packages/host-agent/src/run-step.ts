/**
 * Around every named step of an operation. Here a test can fail, or end the process: what an operation promises must hold at each of its
 * steps, also at those that are added later.
 */
export type RunStep = <Result>(operation: string, step: string, work: () => Promise<Result>) => Promise<Result>;

/** Only the work. */
export const runPlainly: RunStep = async (_operation, _step, work) => work();
