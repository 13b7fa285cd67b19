/** For tests: what this process asks of the file system, met before it happens. */
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

export interface InterceptedCalls {
  /** Of `node:fs/promises`. */
  readonly functions: readonly string[];
  /** Of the file handles that it opens. */
  readonly ofHandles: readonly string[];
}

/**
 * Also in modules that have been loaded: their imports follow.
 * @param before a call fails with what this throws
 */
export async function interceptCalls(
  { functions, ofHandles }: InterceptedCalls,
  before: (name: string, args: readonly unknown[]) => Promise<void> | void,
): Promise<void> {
  const intercept = (target: object, names: readonly string[]): void => {
    for (const name of names) {
      const original = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
      Reflect.set(target, name, async function (this: unknown, ...args: unknown[]) {
        await before(name, args);
        return original.apply(this, args);
      });
    }
  };
  const handle = await fs.open("/dev/null");
  await handle.close();
  intercept(fs, functions);
  intercept(Object.getPrototypeOf(handle) as object, ofHandles);
  syncBuiltinESMExports();
}
