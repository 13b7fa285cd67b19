/** Firecracker as an engine: on KVM, in a jail of its own. */
import { readFile, stat } from "node:fs/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import {
  identifyProcess,
  pollUntil,
  type ProcessIdentity,
  signalProcess,
  startDaemon,
  waitForExit,
} from "@wrenn/system";
import { tap } from "../../network/slot.ts";
import type { Engine, MachineIdentity, VirtualMachine, VmSpec } from "../engine.ts";
import { jailedCommand } from "../launch.ts";
import { createPrivate, engineEnvironment, lastWords } from "../process-files.ts";
import { jailsGid } from "../users.ts";
import { FirecrackerApi } from "./api.ts";
import type { FirecrackerProgram } from "./detect.ts";
import { type Jail, jailOf, makeJail, removeJail, takeApiSocket } from "./jail.ts";
import { inJail, machineIdentity, type MachineSize } from "./machine.ts";
import { Output } from "./output.ts";
import { FirecrackerVm } from "./vm.ts";

export interface FirecrackerEngineOptions {
  readonly program: FirecrackerProgram;
  readonly reason: string;
}

export class FirecrackerEngine implements Engine {
  readonly kind = "firecracker";
  readonly opens = ["raw"] as const;
  readonly mapsLayers = false;
  readonly version: string;
  readonly reason: string;
  readonly #program: FirecrackerProgram;

  constructor({ program, reason }: FirecrackerEngineOptions) {
    this.version = program.version;
    this.reason = reason;
    this.#program = program;
  }

  async identify(size: MachineSize): Promise<MachineIdentity> {
    return machineIdentity(this.version, await readFile("/proc/cpuinfo", "utf8"), size, tap);
  }

  async start(
    spec: VmSpec,
    onSpawned: (identity: ProcessIdentity) => Promise<void>,
    signal: AbortSignal,
  ): Promise<VirtualMachine> {
    const { files } = spec;
    const jail = jailOf(files.jail, this.#program.path, spec.sandboxId);
    for (const log of [files.engineLog, files.consoleLog]) await createPrivate(log);
    const { size: logSize } = await stat(files.engineLog);
    let output: Output | null = null;
    try {
      await makeJail(jail, spec);
      output = await Output.open(files);
      signal.throwIfAborted();
      const [program, args] = this.#command(spec);
      const { pid, exited } = await startDaemon(program, args, { logFile: files.engineLog, env: engineEnvironment() });
      const identity = await identifyProcess(pid);
      if (identity === null) throw new WrennError("engine_failed", { message: "it ended at once." });
      try {
        const vm = FirecrackerVm.watch(identity, files, jail, output, exited);
        await Promise.all([this.#begin(vm, jail, spec, signal), onSpawned(identity)]);
        return vm;
      } catch (error) {
        await signalProcess(identity, "SIGKILL");
        await waitForExit(identity, deadlines.engineQuit);
        throw error;
      }
    } catch (error) {
      await output?.drain();
      await output?.close();
      await removeJail(files.jail);
      signal.throwIfAborted();
      throw await startFailure(spec, logSize, error);
    }
  }

  /** Waits until Firecracker answers, and until its guest boots or runs on. */
  async #begin(vm: FirecrackerVm, jail: Jail, { start, memory }: VmSpec, signal: AbortSignal): Promise<void> {
    const api = new FirecrackerApi(jail.files.apiSocket);
    for (const opens of [() => takeApiSocket(jail), () => api.listens()]) {
      const look = async (): Promise<boolean | null> => (vm.over ? false : (await opens()) || null);
      const done = await pollUntil(look, { timeoutMs: deadlines.engineGreeting, intervalMs: 2, signal });
      if (done !== true) throw new WrennError("engine_failed", { message: "it did not open its socket." });
    }
    if (start.from === "boot") await vm.awaitBooting(signal);
    else if (memory.backend === "file") await vm.load({ backend_type: "File", backend_path: inJail.memory });
    else await vm.load({ backend_type: "Uffd", backend_path: inJail.pagerSocket });
    await assertConfined(vm.identity.pid);
  }

  /** What is run, to its last link. The jailer makes no control groups unless it is told to: the process is in its own by then. */
  #command({ sandboxId, start, files, network, uid, cgroup }: VmSpec): [program: string, args: string[]] {
    const { jailer, path } = this.#program;
    return jailedCommand(cgroup, files.jail.console, [
      jailer,
      ...["--id", sandboxId, "--exec-file", path, "--uid", String(uid), "--gid", String(jailsGid)],
      ...["--chroot-base-dir", files.jail.directory, "--netns", network.namespacePath],
      "--",
      ...["--api-sock", inJail.apiSocket, "--log-path", inJail.log, "--level", "Info"],
      ...(start.from === "boot" ? ["--config-file", inJail.config] : []),
    ]);
  }
}

/**
 * A Firecracker that was built without its own filter of system calls runs without any, and says nothing. The filter is there
 * before the guest runs.
 * @throws WrennError `engine_failed`
 */
async function assertConfined(pid: number): Promise<void> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  if (/^Seccomp:\s+2$/m.test(status)) return;
  throw new WrennError("engine_failed", { message: "it runs without a filter of system calls." });
}

/** @param logSize what was in the log before this start: it may tell of an earlier one */
async function startFailure(spec: VmSpec, logSize: number, cause: unknown): Promise<unknown> {
  if (cause instanceof WrennError && cause.code !== "engine_failed") return cause;
  const words = await lastWords(spec.files.engineLog, logSize);
  const observed = cause instanceof Error ? cause.message : String(cause);
  const what = spec.start.from === "boot" ? "did not start" : "did not take up the frozen state";
  return new WrennError("engine_failed", {
    message: `Firecracker ${what}: ${observed}${words === "" ? "" : ` Its last words: ${words}`}`,
    cause,
  });
}
