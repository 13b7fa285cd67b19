/** QEMU as an engine: with KVM, or emulating the processor. */
import { chmod, chown, open, readFile, rm, stat } from "node:fs/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import {
  identifyProcess,
  isMissingFile,
  type ProcessIdentity,
  signalProcess,
  startDaemon,
  waitForExit,
} from "@wrenn/system";
import { readEnd } from "../console-log.ts";
import type { Engine, EngineKind, MachineIdentity, VirtualMachine, VmSpec } from "../engine.ts";
import { confinedCommand } from "../launch.ts";
import { enginesGid } from "../users.ts";
import { type Accelerator, guestKernelArguments, qemuArguments } from "./command-line.ts";
import type { QemuProgram } from "./detect.ts";
import { QemuVm } from "./vm.ts";

/** Enough of QEMU's standard error to explain why it would not start. */
export const engineWordsBytes = 1_000;

export class QemuEngine implements Engine {
  readonly kind: EngineKind;
  readonly version: string;
  readonly reason: string;
  readonly #program: string;
  readonly #accelerator: Accelerator;

  constructor(program: QemuProgram, accelerator: Accelerator, reason: string) {
    this.kind = accelerator === "kvm" ? "qemu-kvm" : "qemu-tcg";
    this.version = program.version;
    this.reason = reason;
    this.#program = program.path;
    this.#accelerator = accelerator;
  }

  async identify(size: { readonly vcpus: number; readonly memoryMib: number }): Promise<MachineIdentity> {
    const machine = `microvm ${size.vcpus} ${size.memoryMib}`;
    return { engine: this.kind, version: this.version, cpu: this.#accelerator, machine };
  }

  async start(
    spec: VmSpec,
    onSpawned: (identity: ProcessIdentity) => Promise<void>,
    signal: AbortSignal,
  ): Promise<VirtualMachine> {
    const { files, start } = spec;
    if (start.from === "frozen") throw new WrennError("engine_failed", { message: "Nothing is restored yet." });
    await allowTapDevice();
    for (const log of [files.engineLog, files.consoleLog]) await createPrivate(log);
    await removeSocket(files.qmpSocket);
    const command = [
      this.#program,
      ...qemuArguments({
        name: spec.sandboxId,
        accelerator: this.#accelerator,
        vcpus: spec.vcpus,
        memoryMib: spec.memoryMib,
        kernel: start.kernel,
        initramfs: start.initramfs,
        kernelArguments: guestKernelArguments(this.#accelerator, await readFile("/proc/cpuinfo", "utf8")),
        disk: spec.overlay,
        tap: spec.network.tap,
        qmpSocket: files.qmpSocket,
      }),
    ];
    const [program, args] = confinedCommand(
      {
        uid: spec.uid,
        groups: [enginesGid, ...(this.#accelerator === "kvm" ? [await openKvmToGroup()] : [])],
        networkNamespace: spec.network.namespacePath,
        cgroup: spec.cgroup,
      },
      command,
    );
    signal.throwIfAborted();
    const { pid, exited } = await startDaemon(program, args, { logFile: files.engineLog, env: engineEnvironment() });
    const identity = await identifyProcess(pid);
    if (identity === null) throw await this.#startFailure(files.engineLog, null);
    try {
      const [vm] = await Promise.all([QemuVm.connect(identity, files, { exited, signal }), onSpawned(identity)]);
      return vm;
    } catch (error) {
      await signalProcess(identity, "SIGKILL");
      await waitForExit(identity, deadlines.engineQuit);
      signal.throwIfAborted();
      throw await this.#startFailure(files.engineLog, error);
    }
  }

  async #startFailure(engineLog: string, cause: unknown): Promise<WrennError> {
    const words = (await readEnd(engineLog, engineWordsBytes)).toString("utf8").trim();
    const observed = cause instanceof Error ? cause.message : "it ended at once.";
    return new WrennError("engine_failed", {
      message: `QEMU did not start: ${words === "" ? observed : words}`,
      ...(cause === null ? {} : { cause }),
    });
  }
}

/** Removes a control socket, or whatever the engine's user, who owns it, has put in its place. */
export async function removeSocket(qmpSocket: string): Promise<void> {
  await rm(qmpSocket, { recursive: true, force: true });
}

/** What QEMU gets to see of the host agent's environment: where programs are, and nothing else. */
export function engineEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin" };
}

/**
 * Lets engines' users open the device that gives access to taps, as distributions have it (mode 0666, udev's default rules). Opening it
 * grants nothing by itself: a tap can be attached to only by the user it was made for.
 */
async function allowTapDevice(): Promise<void> {
  const { mode } = await stat("/dev/net/tun");
  if ((mode & 0o666) !== 0o666) await chmod("/dev/net/tun", 0o666);
}

/** The group that may use /dev/kvm: the distribution's, or the engines' own where the device was left to root alone. */
export async function openKvmToGroup(): Promise<number> {
  const { gid, mode } = await stat("/dev/kvm");
  const group = gid === 0 ? enginesGid : gid;
  if (gid !== group) await chown("/dev/kvm", 0, group);
  if ((mode & 0o060) !== 0o060) await chmod("/dev/kvm", 0o660);
  return group;
}

/** An empty file that only root can read; the engine could not replace it, its directory being sticky. */
async function createPrivate(file: string): Promise<void> {
  try {
    const handle = await open(file, "a", 0o600);
    await handle.close();
  } catch (error) {
    if (isMissingFile(error))
      throw new WrennError("engine_failed", { message: `${file} cannot be made.`, cause: error });
    throw error;
  }
}
