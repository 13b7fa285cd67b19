/** What a journal keeps from being garbage. */
import type { JournalRoots } from "../memory/roots.ts";
import type { Journal } from "./journal.ts";

export function journalRoots(journal: Journal): JournalRoots {
  switch (journal.state) {
    case "creating":
      return { generations: present(journal.origin), layers: [] };
    case "running": {
      const { memory, disk, lastPause } = journal;
      return {
        generations: [...present(memory.parent), ...present(lastPause)],
        layers: [...present(memory.mapped), ...disk.layers, ...present(disk.switchingTo)],
      };
    }
    case "paused":
    case "resuming":
      return { generations: [journal.generation], layers: [] };
    case "dead":
    case "recovering":
      return {
        generations: present(journal.lastPause),
        layers: [...journal.disk.layers, ...present(journal.disk.switchingTo)],
      };
    case "destroying":
      // Its engine may still run, but nobody needs what it does.
      return { generations: [], layers: [] };
    default:
      return journal satisfies never;
  }
}

function present<Value>(value: Value | null): Value[] {
  return value === null ? [] : [value];
}
