/** For tests: a host agent that is killed, stopped or failed at any step of any operation, by name. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type PrepareOptions, TestHostAgent } from "./host-agent-process.ts";

const faultyProgram = fileURLToPath(new URL("../../dist/testing/faulty-agent.js", import.meta.url));

/** A step that has ended, and how many of the calls in it changed the disk. */
export interface EndedStep {
  readonly operation: string;
  readonly step: string;
  readonly calls: number;
}

export interface Fault {
  readonly operation: string;
  readonly step: string;
  /** A number is that of a call within the step. */
  readonly at: "before" | "after" | number;
  /** The agent is killed, is asked to stop, or goes no further until it is released; or the step or call fails with that errno. */
  readonly how: "kill" | "stop" | "hold" | "ENOSPC" | "EIO";
}

export class FaultyAgent {
  readonly agent: TestHostAgent;
  readonly #faults: string;
  readonly #steps: string;
  /** There as long as nothing is to be released. */
  readonly #hold: string;

  private constructor(agent: TestHostAgent, files: readonly [string, string, string]) {
    this.agent = agent;
    [this.#faults, this.#steps, this.#hold] = files;
  }

  static async start(environment: NodeJS.ProcessEnv = {}, options: PrepareOptions = {}): Promise<FaultyAgent> {
    const agent = await TestHostAgent.prepare(environment, {
      ...options,
      program: (root) => [faultyProgram, ...controls(root)],
    });
    const faulty = new FaultyAgent(agent, controls(agent.layout.root));
    faulty.meet();
    faulty.forgetSteps();
    await agent.start();
    return faulty;
  }

  /** From now on these happen, each once, and in this order. */
  meet(...faults: readonly Fault[]): void {
    writeFileSync(this.#hold, "");
    writeFileSync(this.#faults, JSON.stringify(faults));
  }

  /** Whether something that was asked for has not happened. */
  get isArmed(): boolean {
    return readFileSync(this.#faults, "utf8") !== "[]";
  }

  /** Lets a step that is held go on. */
  release(): void {
    rmSync(this.#hold);
  }

  forgetSteps(): void {
    writeFileSync(this.#steps, "");
  }

  /** The steps of these operations since they were last forgotten, in the order in which they ended. */
  steps(operations: readonly string[]): EndedStep[] {
    const lines = readFileSync(this.#steps, "utf8")
      .split("\n")
      .filter((line) => line !== "");
    return lines.map((line) => JSON.parse(line) as EndedStep).filter(({ operation }) => operations.includes(operation));
  }
}

/** The files by which a test and its agent speak. */
function controls(root: string): [string, string, string] {
  return [path.join(root, "faults"), path.join(root, "steps"), path.join(root, "hold")];
}
