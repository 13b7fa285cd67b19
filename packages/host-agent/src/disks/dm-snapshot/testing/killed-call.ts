/** For tests: kills a process that does something to a disk at one of the programs that it runs for that. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { findProgram, pollUntil, runUnchecked } from "@wrenn/system";
import type { OneCall } from "./one-call.ts";

const oneCall = fileURLToPath(new URL("../../../../dist/disks/dm-snapshot/testing/one-call.js", import.meta.url));

/** Node alone takes many seconds to start on an emulated machine that is busy. */
const patienceMs = 300_000;

/** Instead of the program, after it, or as it begins, which then outlives whoever has started it. */
export type Moment = "instead" | "after" | "while";

export interface KillPoint {
  /** The number of the program, from 1 on. */
  readonly program: number;
  readonly moment: Moment;
}

/** Takes the place of dmsetup and losetup, and counts how often they are run. */
function standIn(program: string, { program: at, moment }: KillPoint, directory: string): string {
  return [
    "#!/bin/sh",
    `cd '${directory}'`,
    "echo >> begun",
    `[ "$(wc -l < begun)" -eq ${at} ] || exec ${program} "$@"`,
    ...(moment === "instead" ? ["kill -9 $PPID"] : []),
    ...(moment === "after" ? [`${program} "$@"`, "kill -9 $PPID"] : []),
    ...(moment === "while" ? ["kill -9 $PPID", `${program} "$@"`] : []),
    "echo > ended",
  ].join("\n");
}

/** Resolves once all has ended that was started. Whether it was killed, and how many programs it had begun. */
export async function killedAt(call: OneCall, point: KillPoint): Promise<{ killed: boolean; programs: number }> {
  const directory = await mkdtemp(path.join(tmpdir(), "wrenn-kill-"));
  try {
    for (const name of ["dmsetup", "losetup"]) {
      const program = await findProgram(name);
      if (program === null) throw new Error(`${name} is not installed`);
      await writeFile(path.join(directory, name), standIn(program, point, directory), { mode: 0o755 });
    }
    const env = { ...process.env, PATH: `${directory}:${process.env["PATH"] ?? ""}` };
    const { exitCode, stderr } = await runUnchecked(process.execPath, [oneCall, JSON.stringify(call)], {
      env,
      timeoutMs: patienceMs,
    });
    const programs = (await readFile(path.join(directory, "begun"), "utf8")).length;
    if (exitCode === 0) return { killed: false, programs };
    if (programs !== point.program) throw new Error(`failed by itself: ${stderr}`);
    const ended = (): Promise<true | null> =>
      readFile(path.join(directory, "ended")).then(
        () => true,
        () => null,
      );
    if ((await pollUntil(ended, { timeoutMs: patienceMs })) === null) throw new Error("the last program does not end");
    return { killed: true, programs };
  } finally {
    await rm(directory, { recursive: true });
  }
}
