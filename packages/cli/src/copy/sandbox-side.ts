/** The files of a sandbox, as a copy looks at them. */
import { randomBytes } from "node:crypto";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import type { FileEntry, FileOptions, Files, Sandbox } from "@wrenn/sdk";
import { say } from "../terminal/messages.ts";
import type { Found } from "./target.ts";

export class SandboxSide {
  readonly files: Files;
  readonly options: FileOptions & { signal: AbortSignal };

  constructor(sandbox: Sandbox, options: { user: string | undefined; signal: AbortSignal }) {
    this.files = sandbox.files;
    this.options = options;
  }

  /** Null when there is nothing at the path. */
  async stat(path: string): Promise<FileEntry | null> {
    try {
      return await this.files.stat(path, this.options);
    } catch (error) {
      if (error instanceof WrennError && error.code === "file_not_found") return null;
      throw error;
    }
  }

  readonly look = async (path: string): Promise<Found | null> => {
    const entry = await this.stat(path);
    if (entry === null) return null;
    const kind = entry.type === "file" || entry.type === "directory" ? entry.type : "other";
    return { kind, realPath: entry.symlinkTarget ?? path };
  };

  /** Does work in a directory beside `target` that is gone afterwards. */
  async withStage(target: string, work: (stage: string) => Promise<void>): Promise<void> {
    const stage = path.posix.join(path.posix.dirname(target), stageName());
    try {
      await work(stage);
    } finally {
      // Also when the copy was interrupted: with a new signal, therefore.
      const { user } = this.options;
      await this.files.remove(stage, { user }).catch(() => say(`wrenn: ${stage} may be left over in the sandbox`));
    }
  }
}

/** What a copy under way is called, here and there: hidden, and nobody else's. */
export function stageName(): string {
  return `.wrenn-cp-${randomBytes(6).toString("hex")}`;
}
