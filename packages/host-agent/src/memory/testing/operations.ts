/** For tests: what is done with frozen states by a process that can be interrupted. Each says what it has reached. */
import { WrennError } from "@wrenn/contract";
import { createLog } from "@wrenn/system";
import { GarbageCollector } from "../collect.ts";
import { FoldQueue } from "../fold.ts";
import type { GenerationManifest } from "../manifest.ts";
import { collectRoots } from "../roots.ts";
import { neverFlattened, standInPager, type TestStates } from "./states.ts";

const log = createLog({ level: "silent" });

export type Say = (line: string) => void;

/** As a snapshot is made: it fails as a whole, or has its root in the end. Says `rooted`, or `failed` and the code. */
export async function publish(states: TestStates, parent: GenerationManifest, say: Say): Promise<void> {
  const draft = await states.generations.begin();
  try {
    await draft.publish(await states.fill(draft, parent, 20_000));
    await states.keepAsTemplate(draft.id);
    say(`rooted ${draft.id}`);
    draft.release();
  } catch (error) {
    await draft.discard();
    throw error;
  }
}

async function discard(states: TestStates, parent: GenerationManifest): Promise<void> {
  const draft = await states.generations.begin();
  await draft.publish(await states.fill(draft, parent));
  await draft.discard();
}

async function fold(states: TestStates, { id }: GenerationManifest): Promise<void> {
  const { generations, layout } = states;
  const folds = new FoldQueue({ generations, pager: standInPager(layout), flattenDisk: neverFlattened, log });
  folds.add(id, { flat: true });
  await folds.idle();
}

async function sweep(states: TestStates): Promise<void> {
  const collector = new GarbageCollector(states.generations, log);
  await collector.sweep(() => collectRoots(states.layout, []), { atOnce: true });
}

export const operations = { publish, discard, fold, sweep };
export type OperationName = keyof typeof operations;

/** Runs one, and says how it failed if it did. */
export async function perform(
  name: OperationName,
  states: TestStates,
  base: GenerationManifest,
  say: Say,
): Promise<void> {
  try {
    await operations[name](states, base, say);
  } catch (error) {
    say(`failed ${error instanceof WrennError ? error.code : String(error)}`);
  }
}
