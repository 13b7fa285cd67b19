/** QEMU as an engine: with KVM, or emulating the processor. */
import { chmod, chown, readFile, rm, stat } from "node:fs/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import { identifyProcess, type ProcessIdentity, signalProcess, startDaemon, waitForExit } from "@wrenn/system";
import type { Engine, EngineKind, MachineIdentity, VirtualMachine, VmDisk, VmSpec } from "../engine.ts";
import { confinedCommand } from "../launch.ts";
import { createPrivate, engineEnvironment, lastWords } from "../process-files.ts";
import { enginesGid } from "../users.ts";
import {
  type Accelerator,
  guestCpu,
  guestKernelArguments,
  machineLine,
  qemuArguments,
  type QemuMachine,
} from "./command-line.ts";
import type { QemuProgram } from "./detect.ts";
import { type Inheritance, openInheritance } from "./inheritance.ts";
import { QemuVm } from "./vm.ts";

export interface QemuEngineOptions {
  readonly program: QemuProgram;
  readonly accelerator: Accelerator;
  readonly reason: string;
  readonly memoryLibrary: string;
}

export class QemuEngine implements Engine {
  readonly kind: EngineKind;
  readonly version: string;
  readonly reason: string;
  readonly opens: readonly VmDisk["format"][] = ["qcow2", "raw"];
  readonly mapsLayers = true;
  readonly #options: QemuEngineOptions;

  constructor(options: QemuEngineOptions) {
    this.kind = options.accelerator === "kvm" ? "qemu-kvm" : "qemu-tcg";
    this.version = options.program.version;
    this.reason = options.reason;
    this.#options = options;
  }

  async identify(size: { readonly vcpus: number; readonly memoryMib: number }): Promise<MachineIdentity> {
    const { accelerator } = this.#options;
    const cpu = guestCpu(accelerator, await readFile("/proc/cpuinfo", "utf8"));
    return { engine: this.kind, version: this.version, cpu, machine: machineLine({ accelerator, ...size }) };
  }

  async start(
    spec: VmSpec,
    onSpawned: (identity: ProcessIdentity) => Promise<void>,
    signal: AbortSignal,
  ): Promise<VirtualMachine> {
    const { files } = spec;
    const logs = [files.engineLog, files.consoleLog];
    await Promise.all([allowTapDevice(), ...logs.map(createPrivate), removeSocket(files.qmpSocket)]);
    const { size: logSize } = await stat(files.engineLog);
    const failure = (cause: unknown): Promise<WrennError> => startFailure(spec, logSize, cause);
    const inheritance = await openInheritance(spec, this.#options.memoryLibrary);
    try {
      const [program, args] = await this.#command(spec, inheritance);
      signal.throwIfAborted();
      const { inherited } = inheritance;
      const daemon = { logFile: files.engineLog, env: engineEnvironment(), inherited };
      const { pid, exited } = await startDaemon(program, args, daemon);
      const identity = await identifyProcess(pid);
      if (identity === null) throw await failure(null);
      try {
        const [vm] = await Promise.all([QemuVm.connect(identity, files, { exited, signal }), onSpawned(identity)]);
        await inheritance.assertTaken(identity.pid);
        if (spec.start.from === "frozen") await vm.awaitRunning(signal);
        return vm;
      } catch (error) {
        await signalProcess(identity, "SIGKILL");
        await waitForExit(identity, deadlines.engineQuit);
        signal.throwIfAborted();
        throw await failure(error);
      }
    } finally {
      await inheritance.close();
    }
  }

  /** What is run, to its last link. */
  async #command(spec: VmSpec, inheritance: Inheritance): Promise<[program: string, args: string[]]> {
    const { accelerator, program } = this.#options;
    const { start } = spec;
    const machine: QemuMachine = {
      name: spec.sandboxId,
      accelerator,
      vcpus: spec.vcpus,
      memoryMib: spec.memoryMib,
      start:
        start.from === "boot"
          ? { ...start, kernelArguments: guestKernelArguments(accelerator, await readFile("/proc/cpuinfo", "utf8")) }
          : { from: "frozen", deviceState: inheritance.deviceState },
      disk: spec.disk,
      tap: spec.network.tap,
      qmpSocket: spec.files.qmpSocket,
    };
    return confinedCommand(
      {
        uid: spec.uid,
        groups: [enginesGid, ...(accelerator === "kvm" ? [await openKvmToGroup()] : [])],
        networkNamespace: spec.network.namespacePath,
        cgroup: spec.cgroup,
      },
      ["env", ...inheritance.environment, program.path, ...qemuArguments(machine)],
    );
  }
}

/** @param logSize what was in the log before this start: it may tell of an earlier one */
async function startFailure(spec: VmSpec, logSize: number, cause: unknown): Promise<WrennError> {
  const words = await lastWords(spec.files.engineLog, logSize);
  const observed = cause instanceof Error ? cause.message : "it ended at once.";
  const what = spec.start.from === "boot" ? "did not start" : "did not take up the frozen state";
  return new WrennError("engine_failed", {
    message: `QEMU ${what}: ${words === "" ? observed : words}`,
    ...(cause === null ? {} : { cause }),
  });
}

/** Removes a control socket, or whatever the engine's user, who owns it, has put in its place. */
export async function removeSocket(qmpSocket: string): Promise<void> {
  await rm(qmpSocket, { recursive: true, force: true });
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
