/**
 * Whether KVM works on this machine. Opening /dev/kvm is no proof: some machines have a KVM in which an ordinary guest kernel
 * hangs. So a canary is booted in it, once per boot of the host.
 */
import { access, chown, constants, mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, describeError, engineMemoryOverheadMib } from "@wrenn/contract";
import {
  identifyProcess,
  type Layout,
  pollUntil,
  readBootId,
  readJson,
  signalProcess,
  startDaemon,
  waitForExit,
  writeJsonDurably,
} from "@wrenn/system";
import { z } from "zod";
import type { Cgroups } from "../cgroups.ts";
import { confinedCommand } from "../launch.ts";
import { engineEnvironment, lastWords } from "../process-files.ts";
import { canaryUid, enginesGid } from "../users.ts";
import { consoleChardev, consoleRingBytes, guestKernelArguments, qemuArguments } from "./command-line.ts";
import { openKvmToGroup } from "./engine.ts";
import { QmpClient, type QmpEvent } from "./qmp.ts";

const kvmVerdictSchema = z.object({ bootId: z.string(), usable: z.boolean(), reason: z.string() });
/** What was learnt about KVM during one boot of the host. */
export type KvmVerdict = z.infer<typeof kvmVerdictSchema>;

export interface CanaryBoot {
  readonly qemu: string;
  readonly kernel: string;
  readonly initramfs: string;
}

/** What became of the canary; null when the deadline passed while it still printed. */
type Outcome = "booted" | "exited" | "silent" | null;

/** Enough for any kernel that gets as far as its init. */
const canaryMemoryMib = 256;

const canaryName = "kvm-canary";

const canaryLimits = { memoryMib: canaryMemoryMib + engineMemoryOverheadMib, cpus: 2, pids: 100 };

/** Where the canary lives. Its control socket tells its process from others, should it outlive the host agent that started it. */
export function canaryFiles(layout: Layout): { directory: string; qmpSocket: string } {
  const directory = path.join(layout.run, canaryName);
  return { directory, qmpSocket: path.join(directory, "qmp.sock") };
}

/** The verdict of this boot of the host, or null when KVM has not been tried since. */
export async function readKvmVerdict(layout: Layout): Promise<KvmVerdict | null> {
  const parsed = kvmVerdictSchema.safeParse(await readJson(layout.kvmVerdict));
  return parsed.success && parsed.data.bootId === (await readBootId()) ? parsed.data : null;
}

/** The verdict of this boot of the host, found out now if it is not known yet. Only what a canary showed is remembered. */
export async function decideKvm(
  layout: Layout,
  cgroups: Cgroups,
  boot: CanaryBoot,
): Promise<Omit<KvmVerdict, "bootId">> {
  const known = await readKvmVerdict(layout);
  if (known !== null) return known;
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return { usable: false, reason: "This machine has no /dev/kvm that can be opened." };
  }
  try {
    const shown = await bootCanary(layout, cgroups, boot);
    await writeJsonDurably(layout.kvmVerdict, { bootId: await readBootId(), ...shown }, 0o644);
    return shown;
  } catch (error) {
    return {
      usable: false,
      reason: `KVM could not be tried: ${describeError(error).replace(/\.$/, "")}.`,
    };
  }
}

/**
 * Boots the kernel with an init that does not exist: a kernel that works runs all of its start, panics, and QEMU reports the
 * restart that follows. One that hangs is recognised by its silence, or at the latest by the deadline.
 */
async function bootCanary(
  layout: Layout,
  cgroups: Cgroups,
  boot: CanaryBoot,
): Promise<{ usable: boolean; reason: string }> {
  const { directory, qmpSocket } = canaryFiles(layout);
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { mode: 0o700 });
  await chown(directory, canaryUid, canaryUid);
  const logFile = path.join(directory, "engine.log");
  const verbose = guestKernelArguments("kvm", "").filter((argument) => argument !== "quiet");
  const command = qemuArguments({
    name: `wrenn-${canaryName}`,
    accelerator: "kvm",
    vcpus: 1,
    memoryMib: canaryMemoryMib,
    start: {
      from: "boot",
      kernel: boot.kernel,
      initramfs: boot.initramfs,
      kernelArguments: [...verbose, "earlyprintk=ttyS0", "rdinit=/no-init-for-this-canary"],
    },
    disk: null,
    tap: null,
    qmpSocket,
  });
  const group = await openKvmToGroup();
  const cgroup = await cgroups.create(canaryName, canaryLimits);
  const [program, args] = confinedCommand(
    { uid: canaryUid, groups: [enginesGid, group], networkNamespace: null, cgroup },
    [boot.qemu, ...command],
  );
  const { pid, exited } = await startDaemon(program, args, { logFile, env: engineEnvironment() });
  const identity = await identifyProcess(pid);
  try {
    return await watchCanary(qmpSocket, logFile, exited);
  } finally {
    // It may be spinning in the kernel's KVM: nothing but SIGKILL is sure to end it.
    if (identity !== null) {
      await signalProcess(identity, "SIGKILL");
      await waitForExit(identity, deadlines.engineQuit);
    }
    await cgroups.remove(canaryName);
    await rm(directory, { recursive: true, force: true });
  }
}

async function watchCanary(
  qmpSocket: string,
  logFile: string,
  exited: Promise<number>,
): Promise<{ usable: boolean; reason: string }> {
  const seen = { end: false, exit: false, text: "" };
  const awaitExit = async (): Promise<void> => {
    await exited;
    seen.exit = true;
  };
  void awaitExit();
  const started = performance.now();
  const outcome = await watchBoot(qmpSocket, seen).catch(async (error: unknown): Promise<Outcome> => {
    // A QEMU that cannot cope with this KVM closes its socket and ends, at any moment.
    await Promise.race([exited, delay(deadlines.engineQuit)]);
    if (!seen.exit) throw error;
    return "exited";
  });
  return { usable: outcome === "booted", reason: await explain(outcome, performance.now() - started, logFile) };
}

async function watchBoot(qmpSocket: string, seen: { end: boolean; exit: boolean; text: string }): Promise<Outcome> {
  const onEvent = (event: QmpEvent): void => {
    if (event.name === "SHUTDOWN") seen.end = true;
  };
  const qmp = await QmpClient.connect(qmpSocket, onEvent, { mayStillCome: () => !seen.exit });
  const started = performance.now();
  try {
    return await pollUntil<Exclude<Outcome, null>>(
      async () => {
        if (seen.end) return "booted";
        if (seen.exit) return "exited";
        const args = { device: consoleChardev, size: consoleRingBytes };
        seen.text += z.string().parse(await qmp.execute("ringbuf-read", args));
        const silent = seen.text === "" && performance.now() - started > deadlines.kvmCanarySilence;
        return silent ? "silent" : null;
      },
      { timeoutMs: deadlines.kvmCanary, intervalMs: 50 },
    );
  } finally {
    qmp.close();
  }
}

async function explain(outcome: Outcome, afterMs: number, logFile: string): Promise<string> {
  switch (outcome) {
    case "booted":
      return "KVM works: a guest kernel booted in it.";
    case "exited": {
      const words = await lastWords(logFile);
      // The first line says what; assertions and traces that follow it are for QEMU's developers.
      return `QEMU gave up on KVM: ${words.split("\n", 1).join("")}.`;
    }
    case "silent":
    case null: {
      const seconds = Math.round(afterMs / 1_000);
      return `/dev/kvm opens, but a guest kernel hangs in it (nothing booted within ${seconds} s).`;
    }
    default:
      return outcome satisfies never;
  }
}
