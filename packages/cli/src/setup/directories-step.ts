/** WRENN_DIR and what lies in it, with the modes that keep other users of the machine out. */
import { chmod, stat } from "node:fs/promises";
import { isMissingFile, type Layout, makeDirectory } from "@wrenn/system";
import type { SetupStep } from "./step.ts";

interface DirectoryMode {
  readonly path: string;
  readonly mode: number;
}

/** For groups and others: write to a directory, anything to a secret. */
const othersWrite = 0o022;
const othersAnything = 0o077;

/** PostgreSQL's own directory is made by its server, which runs as another user. */
function directories(layout: Layout): readonly DirectoryMode[] {
  return [
    // Engines and PostgreSQL, under users of their own, pass through but cannot list.
    { path: layout.root, mode: 0o711 },
    { path: layout.boot, mode: 0o755 },
    { path: layout.images, mode: 0o755 },
    { path: layout.sandboxes, mode: 0o711 },
    { path: layout.run, mode: 0o711 },
    { path: layout.logs, mode: 0o750 },
    { path: layout.cache, mode: 0o755 },
    { path: layout.bin, mode: 0o755 },
  ];
}

export function directoriesStep(layout: Layout): SetupStep {
  return {
    name: `Making ${layout.root}`,
    expectedSeconds: 1,
    needsRoot: true,
    isDone: async () => {
      const modes = await Promise.all(directories(layout).map(({ path }) => modeOf(path)));
      const credentials = await modeOf(layout.credentials);
      return (
        modes.every((mode) => mode !== null && (mode & othersWrite) === 0) &&
        (credentials === null || (credentials & othersAnything) === 0)
      );
    },
    run: async () => {
      for (const { path, mode } of directories(layout)) {
        await makeDirectory(path);
        await chmod(path, mode);
      }
      if ((await modeOf(layout.credentials)) !== null) await chmod(layout.credentials, 0o600);
    },
  };
}

async function modeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).mode & 0o7777;
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}
