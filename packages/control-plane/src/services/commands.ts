/** Commands in sandboxes: started, run to their end, followed, listed, signalled. For the REST API and its WebSockets alike. */
import { asProcess, deadlines, errorFromGuest, processProto, startErrors, WrennError } from "@wrenn/contract";
import type { Command, Exec, ExecResult, Process, SandboxId, SignalName, TeamId } from "@wrenn/contract";
import { withTimeLimit } from "@wrenn/system";
import type { Logger } from "pino";
import { Abandonments } from "./abandonments.ts";
import { collect } from "./collect-command.ts";
import { FollowedProcess } from "./followed-process.ts";
import type { InputKind } from "./followed-process.ts";
import { asUser } from "./guests.ts";
import type { Guest, Guests } from "./guests.ts";
import type { SandboxLosses } from "./sandbox-losses.ts";

export interface CommandsOptions {
  readonly guests: Guests;
  readonly losses: SandboxLosses;
  readonly log: Logger;
}

export interface TerminalSize {
  readonly cols: number;
  readonly rows: number;
}

export interface StartCommand extends Command {
  readonly tag?: string | undefined;
  /** Whether it gets a standard input; without it, it reads end of file. A terminal always can be typed into. */
  readonly stdin: boolean;
  readonly timeout_seconds?: number | undefined;
  readonly terminal?: TerminalSize;
}

export type ProcessSelector = { readonly pid: number } | { readonly tag: string };

export interface AttachOptions {
  /** Whether the output kept so far comes first. */
  readonly replay: boolean;
  readonly inputKinds: readonly InputKind[];
}

/** Seconds after which the guest agent says that it is still there when a process prints nothing. */
const keepaliveSeconds = 30;

export class Commands {
  readonly abandonments: Abandonments;
  readonly #guests: Guests;
  readonly #losses: SandboxLosses;

  constructor({ guests, losses, log }: CommandsOptions) {
    this.#guests = guests;
    this.#losses = losses;
    this.abandonments = new Abandonments(log);
  }

  /** @throws WrennError `sandbox_not_found`, `sandbox_state_conflict` */
  async assertReachable(teamId: TeamId, sandboxId: SandboxId): Promise<void> {
    await this.#guests.reach(teamId, sandboxId);
  }

  /**
   * Runs a command to its end. When the caller is gone, or the end cannot be told, it is killed with all that it started.
   * @throws WrennError `command_not_found`, `command_not_executable`, `guest_refused`, `connection_lost`, why the sandbox died
   */
  async exec(teamId: TeamId, sandboxId: SandboxId, ask: Exec, callerGone: AbortSignal): Promise<ExecResult> {
    const command = await this.start(teamId, sandboxId, { ...ask, stdin: ask.stdin !== "" });
    const late = (): WrennError =>
      new WrennError("guest_timeout", { message: "The guest agent did not end the command in time." });
    try {
      const limitMs = ask.timeout_seconds * 1_000 + deadlines.guestCall;
      return await withTimeLimit(limitMs, late, [callerGone], async (signal) => collect(command, ask, signal));
    } catch (error) {
      command.leave();
      this.abandonments.kill(command);
      throw error;
    }
  }

  /**
   * Starts a program and follows it. It goes on when the caller stops following.
   * @throws WrennError as `exec`, and `process_tag_taken`
   */
  async start(teamId: TeamId, sandboxId: SandboxId, command: StartCommand): Promise<FollowedProcess> {
    const guest = await this.#guests.reach(teamId, sandboxId);
    const { tag = null, terminal, user, timeout_seconds: seconds } = command;
    const inputKinds: InputKind[] = terminal === undefined ? (command.stdin ? ["stdin"] : []) : ["pty"];
    const headers = {
      ...keepalive(),
      ...asUser(user),
      // The agent reads the process's own deadline in it, which holds whether or not anybody follows.
      ...(seconds === undefined ? {} : { "connect-timeout-ms": String(Math.ceil(seconds * 1_000)) }),
    };
    return FollowedProcess.open(
      { guest, losses: this.#losses, tag, inputKinds },
      (signal) => guest.processes.start(startRequest(command), { signal, headers }),
      startErrors,
    );
  }

  /**
   * Follows a process that runs already, or has ended within the last half minute.
   * @throws WrennError `process_not_found`
   */
  async attach(
    teamId: TeamId,
    sandboxId: SandboxId,
    selector: ProcessSelector,
    { replay, inputKinds }: AttachOptions,
  ): Promise<FollowedProcess> {
    const guest = await this.#guests.reach(teamId, sandboxId);
    const tag = "tag" in selector ? selector.tag : await this.#tagOf(guest, selector.pid);
    return FollowedProcess.open(
      { guest, losses: this.#losses, tag, inputKinds },
      (signal) =>
        guest.processes.connect(
          { process: asGuestSelector(selector) },
          { signal, headers: { ...keepalive(), "wrenn-replay-output": String(replay) } },
        ),
      {},
    );
  }

  /** Those that were started through Wrenn and run, oldest first. */
  async list(teamId: TeamId, sandboxId: SandboxId): Promise<Process[]> {
    return this.#list(await this.#guests.reach(teamId, sandboxId));
  }

  /**
   * To the process's group; SIGKILL to everything that it has started.
   * @throws WrennError `process_not_found`
   */
  async signal(teamId: TeamId, sandboxId: SandboxId, pid: number, name: SignalName): Promise<void> {
    const guest = await this.#guests.reach(teamId, sandboxId);
    const request = { process: asGuestSelector({ pid }), signal: processProto.Signal[name] };
    await this.#call(guest, async () => guest.processes.sendSignal(request, { timeoutMs: deadlines.guestCall }));
  }

  async #list(guest: Guest): Promise<Process[]> {
    const { processes } = await this.#call(guest, async () =>
      guest.processes.list({}, { timeoutMs: deadlines.guestCall }),
    );
    return processes.map((process) => asProcess(process));
  }

  async #tagOf(guest: Guest, pid: number): Promise<string | null> {
    return (await this.#list(guest)).find((process) => process.pid === pid)?.tag ?? null;
  }

  async #call<Answer>(guest: Guest, call: () => Promise<Answer>): Promise<Answer> {
    try {
      return await call();
    } catch (error) {
      throw await this.#losses.explain(guest, errorFromGuest(error));
    }
  }
}

function startRequest({ cmd, args, envs, cwd, tag, stdin, terminal }: StartCommand) {
  return {
    process: { cmd, args, envs, ...(cwd === undefined ? {} : { cwd }) },
    ...(terminal === undefined ? {} : { pty: { size: terminal } }),
    ...(tag === undefined ? {} : { tag }),
    stdin,
  };
}

function keepalive(): Record<string, string> {
  return { "keepalive-ping-interval": String(keepaliveSeconds) };
}

function asGuestSelector(selector: ProcessSelector) {
  return "pid" in selector
    ? { selector: { case: "pid" as const, value: selector.pid } }
    : { selector: { case: "tag" as const, value: selector.tag } };
}
