/** For tests: random lives of sandboxes on one host agent, beside a model of what each must have in memory and on its disk. */
import { setTimeout as delay } from "node:timers/promises";
import { hostAgentProto } from "@wrenn/contract";
import { failureOf } from "../../testing/failure.ts";
import type { TestHostAgent } from "../../testing/host-agent-process.ts";
import { forget, newTemplate, type TemplateName, TestSandbox } from "../../testing/test-sandbox.ts";
import type { Event } from "./events.ts";
import { ModelledGuest } from "./modelled-guest.ts";

const { SandboxState } = hostAgentProto;

/** Few, so that a history stays in one place long enough for something to happen there. */
const bounds = { running: 3, sandboxes: 4, snapshots: 2 };

type Operation = Extract<Event, { operation: string }>["operation"];

interface Life {
  readonly sandbox: TestSandbox;
  guest: ModelledGuest;
  isPaused: boolean;
  /** What it goes back to when its VM is lost. */
  lastPause: ModelledGuest | null;
}

interface Kept {
  readonly template: TemplateName;
  readonly guest: ModelledGuest;
}

export class History {
  readonly #agent: TestHostAgent;
  /** How memory must come back; null for either way. */
  readonly #backend: "file" | "uffd" | null;
  #lives: Life[] = [];
  #snapshots: Kept[] = [];

  constructor(agent: TestHostAgent, backend: "file" | "uffd" | null) {
    this.#agent = agent;
    this.#backend = backend;
  }

  async happen(event: Event): Promise<void> {
    switch (event.does) {
      case "create":
        await this.#create(event.snapshot);
        return;
      case "fill":
      case "zero":
      case "drop": {
        const { guest, sandbox } = await this.#running(event.which);
        return guest.remember(sandbox.run, event);
      }
      case "write":
      case "append": {
        const { guest, sandbox } = await this.#running(event.which);
        return guest.write(sandbox.run, event.fileName, event.seed, event.bytes, event.does === "append");
      }
      case "remove": {
        const { guest, sandbox } = await this.#running(event.which);
        return guest.remove(sandbox.run, event.fileName);
      }
      case "reread": {
        const { guest, sandbox } = await this.#running(event.which);
        return guest.rereadDisk(sandbox.run);
      }
      case "pause":
        return this.#pause(await this.#running(event.which));
      case "resume":
        return this.#resume(await this.#paused(event.which));
      case "fork":
        return this.#fork(await this.#any(event.which), event.copies);
      case "snapshot":
        return this.#snapshot(await this.#any(event.which));
      case "delete snapshot":
        return this.#deleteSnapshot(event.which);
      case "destroy":
        return this.#destroy(await this.#any(event.which));
      case "lose the VM":
        return this.#loseVm(await this.#running(event.which));
      case "kill the host agent":
        await this.#agent.restart();
        return this.#checkAll();
      case "kill the host agent during":
        return this.#interrupt(event.operation, event.which, event.afterMs);
    }
  }

  /** Looks at everything once more, from the disk, and removes it. */
  async end(): Promise<void> {
    for (const life of [...this.#lives]) {
      if (life.isPaused) await this.#resume(life);
      await life.guest.rereadDisk(life.sandbox.run);
      await this.#check(life);
      await this.#destroy(life);
    }
    while (this.#snapshots.length > 0) await this.#deleteSnapshot(0);
  }

  async #create(which: number): Promise<Life> {
    await this.#makeRoom({ sandboxes: 1, running: 1 }, []);
    // Every third one is new.
    const kept = which % 3 === 0 ? undefined : at(this.#snapshots, which);
    if (kept === undefined) return this.#welcome(await TestSandbox.create(this.#agent), null);
    return this.#welcome(await TestSandbox.copyOf(this.#agent, kept.template), kept.guest);
  }

  /** @param original what it is a copy of; null for one that is new */
  async #welcome(sandbox: TestSandbox, original: ModelledGuest | null): Promise<Life> {
    const guest = original === null ? await ModelledGuest.begin(sandbox.run) : original.copy();
    const life: Life = { sandbox, guest, isPaused: false, lastPause: null };
    this.#lives.push(life);
    await this.#check(life);
    return life;
  }

  async #pause(life: Life): Promise<void> {
    await life.sandbox.pause();
    life.isPaused = true;
  }

  async #resume(life: Life): Promise<void> {
    await this.#makeRoom({ sandboxes: 0, running: 1 }, [life]);
    await life.sandbox.resume();
    await this.#hasResumed(life);
  }

  async #hasResumed(life: Life): Promise<void> {
    life.lastPause = life.guest.copy();
    life.isPaused = false;
    await this.#check(life);
  }

  async #fork(life: Life, count: number): Promise<void> {
    await this.#makeRoom({ sandboxes: count, running: count }, [life]);
    const copies = Array.from({ length: count }, () => new TestSandbox(this.#agent));
    await life.sandbox.fork(copies);
    for (const copy of copies) await this.#welcome(copy, life.guest);
    await this.#check(life);
  }

  async #snapshot(life: Life): Promise<void> {
    if (this.#snapshots.length >= bounds.snapshots) await this.#deleteSnapshot(0);
    this.#snapshots.push({ template: await life.sandbox.keep(), guest: life.guest.copy() });
    await this.#check(life);
  }

  async #deleteSnapshot(which: number): Promise<void> {
    const kept = at(this.#snapshots, which);
    if (kept === undefined) return;
    await forget(this.#agent, kept.template);
    this.#snapshots = this.#snapshots.filter((other) => other !== kept);
  }

  async #destroy(life: Life): Promise<void> {
    await life.sandbox.destroy();
    this.#lives = this.#lives.filter((other) => other !== life);
  }

  async #loseVm(life: Life): Promise<void> {
    await life.sandbox.loseVm();
    // From its disk, it would have what it happened to have written back.
    if (life.lastPause === null) return this.#destroy(life);
    await life.sandbox.recover(hostAgentProto.RecoverySource.LAST_PAUSE);
    life.guest = life.lastPause.copy();
    await this.#check(life);
  }

  async #interrupt(operation: Operation, which: number, afterMs: number): Promise<void> {
    const life = await this.#subject(operation, which);
    await this.#makeRoom({ sandboxes: 1, running: 1 }, [life]);
    const newcomer = new TestSandbox(this.#agent);
    const template = newTemplate();
    const begin = {
      create: () => newcomer.create(),
      pause: () => life.sandbox.pause(),
      resume: () => life.sandbox.resume(),
      fork: () => life.sandbox.fork([newcomer]),
      snapshot: () => life.sandbox.keep(template),
      destroy: () => life.sandbox.destroy(),
    }[operation];
    const ended = Promise.allSettled([begin()]);
    await delay(afterMs);
    await this.#agent.restart();
    await ended;
    if (operation === "destroy") {
      const failure = await failureOf(life.sandbox.destroy());
      if (failure !== "none" && failure !== "sandbox_not_found") throw new Error(`a second destroy fails: ${failure}`);
      this.#lives = this.#lives.filter((other) => other !== life);
    }
    await this.#takeStock(operation, life, newcomer, template);
  }

  /** What was under way has happened, or it has not; nothing else has. */
  async #takeStock(operation: Operation, subject: Life, newcomer: TestSandbox, template: TemplateName): Promise<void> {
    const { client } = this.#agent;
    const { snapshots } = await client.listSnapshots({});
    if (snapshots.some(({ templateId }) => templateId === template.templateId)) {
      this.#snapshots.push({ template, guest: subject.guest.copy() });
    }
    const states = new Map(
      (await client.listSandboxes({})).sandboxes.map(({ sandboxId, state }) => [sandboxId, state]),
    );
    for (const life of this.#lives) {
      const state = states.get(life.sandbox.id);
      const mayHaveChanged = life === subject && (operation === "pause" || operation === "resume");
      if (state === SandboxState.PAUSED && (life.isPaused || mayHaveChanged)) life.isPaused = true;
      else if (state === SandboxState.RUNNING && !life.isPaused) await this.#check(life);
      else if (state === SandboxState.RUNNING && mayHaveChanged) await this.#hasResumed(life);
      else throw new Error(`${life.sandbox.id} is ${state === undefined ? "gone" : SandboxState[state]}`);
      states.delete(life.sandbox.id);
    }
    if (states.delete(newcomer.id)) await this.#welcome(newcomer, operation === "create" ? null : subject.guest);
    if (states.size > 0) throw new Error(`nobody has made ${[...states.keys()].join(", ")}`);
  }

  async #checkAll(): Promise<void> {
    for (const life of this.#lives) await this.#check(life);
  }

  async #check(life: Life): Promise<void> {
    const { sandbox, guest, isPaused } = life;
    if (isPaused) return;
    const { memoryBackend } = await sandbox.describe();
    if (this.#backend !== null && memoryBackend !== this.#backend) {
      throw new Error(`${sandbox.id} has its memory by ${memoryBackend}`);
    }
    const flaws = await guest.flaws(sandbox.run);
    if (flaws.length > 0) throw new Error(`${sandbox.id} does not have what it must have: ${flaws.join(", ")}`);
  }

  async #subject(operation: Operation, which: number): Promise<Life> {
    if (operation === "pause") return this.#running(which);
    return operation === "resume" ? this.#paused(which) : this.#any(which);
  }

  /** One that runs; where there is none, one begins to. */
  async #running(which: number): Promise<Life> {
    const running = at(
      this.#lives.filter(({ isPaused }) => !isPaused),
      which,
    );
    if (running !== undefined) return running;
    const paused = at(this.#lives, which);
    if (paused === undefined) return this.#create(which);
    await this.#resume(paused);
    return paused;
  }

  /** One that is paused; where there is none, one is. */
  async #paused(which: number): Promise<Life> {
    const paused = at(
      this.#lives.filter(({ isPaused }) => isPaused),
      which,
    );
    if (paused !== undefined) return paused;
    const running = await this.#running(which);
    await this.#pause(running);
    return running;
  }

  async #any(which: number): Promise<Life> {
    return at(this.#lives, which) ?? this.#create(which);
  }

  /** Destroys and pauses the oldest until so many more fit. */
  async #makeRoom(more: { sandboxes: number; running: number }, kept: readonly Life[]): Promise<void> {
    const others = this.#lives.filter((life) => !kept.includes(life));
    const surplus = this.#lives.length + more.sandboxes - bounds.sandboxes;
    for (const life of others.splice(0, Math.max(0, surplus))) await this.#destroy(life);
    const tooMany = this.#lives.filter(({ isPaused }) => !isPaused).length + more.running - bounds.running;
    const pausable = others.filter(({ isPaused }) => !isPaused);
    for (const life of pausable.slice(0, Math.max(0, tooMany))) await this.#pause(life);
  }
}

/** The member that a number of any size means. */
function at<Item>(items: readonly Item[], which: number): Item | undefined {
  return items.length === 0 ? undefined : items[which % items.length];
}
