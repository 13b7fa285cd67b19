/** For tests: what can be done to a sandbox, which steps that takes, and what must hold when it was cut short at any of them. */
import { hostAgentProto, newId } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { newTemplate, type Stage, type State, type Template } from "./stage.ts";

const { SandboxState, RecoverySource } = hostAgentProto;

/** How it came out: done and acknowledged, refused with an error, or nobody has heard. */
export type Outcome = "acknowledged" | "refused" | "unheard";

export interface Attempt {
  readonly act: () => Promise<void>;
  /** What is wrong afterwards. The sandbox may be resumed to see it. */
  readonly flaws: (outcome: Outcome) => Promise<string[]>;
}

export interface Interruptible {
  readonly name: string;
  /** What it begins in. */
  readonly state: State;
  /** Whose steps are its own, as they are called in the code. */
  readonly operations: readonly string[];
  readonly attempt: (stage: Stage) => Attempt;
}

/** The states that are right after each outcome: the one it began in, or the one it leads to. */
function between(before: hostAgentProto.SandboxState, after: hostAgentProto.SandboxState) {
  return (outcome: Outcome): readonly hostAgentProto.SandboxState[] => {
    if (outcome === "acknowledged") return [after];
    return outcome === "refused" ? [before] : [before, after];
  };
}

async function stateFlaws(stage: Stage, right: readonly hostAgentProto.SandboxState[]): Promise<string[]> {
  const state = await stage.stateOf(stage.id);
  return state !== null && right.includes(state) ? [] : [`it is ${state === null ? "gone" : SandboxState[state]}`];
}

const pausing: Interruptible = {
  name: "pausing",
  state: "running",
  operations: ["pause"],
  attempt: (stage) => ({
    act: () => stage.pause(),
    flaws: async (outcome) => [
      ...(await stateFlaws(stage, between(SandboxState.RUNNING, SandboxState.PAUSED)(outcome))),
      ...(await stage.losses()),
    ],
  }),
};

const resuming: Interruptible = {
  name: "resuming",
  state: "paused",
  operations: ["resume"],
  attempt: (stage) => ({
    act: () => stage.resume(),
    flaws: async (outcome) => [
      ...(await stateFlaws(stage, between(SandboxState.PAUSED, SandboxState.RUNNING)(outcome))),
      ...(await stage.losses()),
    ],
  }),
};

function snapshotting(state: "running" | "paused"): Interruptible {
  return {
    name: `taking a snapshot of a ${state} sandbox`,
    state,
    operations: ["copy", "snapshot"],
    attempt: (stage) => {
      const template = newTemplate();
      return {
        act: async () => {
          await stage.snapshot(template);
        },
        flaws: async (outcome) => {
          const flaws = await stateFlaws(stage, [state === "running" ? SandboxState.RUNNING : SandboxState.PAUSED]);
          flaws.push(...(await stage.losses()));
          const isKept = (await stage.templates()).includes(template.templateId);
          if (isKept) flaws.push(...(await stage.lossesOfTemplate(template)));
          else if (outcome === "acknowledged") flaws.push("the snapshot is gone");
          if (isKept && outcome === "refused") flaws.push("the snapshot was refused, and is there");
          if (isKept) await stage.client.deleteSnapshot(template);
          return flaws;
        },
      };
    },
  };
}

function forking(state: "running" | "paused"): Interruptible {
  return {
    name: `forking a ${state} sandbox`,
    state,
    operations: ["copy", "create"],
    attempt: (stage) => {
      const copy = newId("sandbox");
      return {
        act: async () => {
          await stage.fork(copy);
        },
        flaws: async (outcome) => {
          const flaws = await stateFlaws(stage, [state === "running" ? SandboxState.RUNNING : SandboxState.PAUSED]);
          flaws.push(...(await stage.losses()));
          const isThere = (await stage.stateOf(copy)) !== null;
          if (isThere) flaws.push(...(await stage.losses(copy)));
          else if (outcome === "acknowledged") flaws.push("the copy is gone");
          if (isThere && outcome === "refused") flaws.push("the copy was refused, and is there");
          if (isThere) await stage.destroy(copy);
          return flaws;
        },
      };
    },
  };
}

const booting: Interruptible = {
  name: "booting a dead sandbox from its disk",
  state: "dead",
  operations: ["recover"],
  attempt: (stage) => ({
    act: () => stage.recover(RecoverySource.DISK),
    flaws: async (outcome) => {
      const flaws = await stateFlaws(stage, between(SandboxState.DEAD, SandboxState.RUNNING)(outcome));
      if ((await stage.stateOf(stage.id)) === SandboxState.DEAD) await stage.recover(RecoverySource.DISK);
      flaws.push(...(await stage.diskLosses()));
      // Its processes are gone: the next attempt begins with its last pause.
      await stage.end();
      return flaws;
    },
  }),
};

const rollingBack: Interruptible = {
  name: "rolling a dead sandbox back to its last pause",
  state: "dead",
  operations: ["recover", "resume"],
  attempt: (stage) => ({
    act: () => stage.recover(RecoverySource.LAST_PAUSE),
    flaws: async (outcome) => {
      // It is dead, then paused, then running.
      const right =
        outcome === "acknowledged"
          ? [SandboxState.RUNNING]
          : [SandboxState.DEAD, SandboxState.PAUSED, ...(outcome === "unheard" ? [SandboxState.RUNNING] : [])];
      const flaws = await stateFlaws(stage, right);
      if ((await stage.stateOf(stage.id)) === SandboxState.DEAD) await stage.recover(RecoverySource.LAST_PAUSE);
      return [...flaws, ...(await stage.losses())];
    },
  }),
};

function destroying(state: State): Interruptible {
  return {
    name: `destroying a ${state} sandbox`,
    state,
    operations: ["destroy"],
    attempt: (stage) => ({
      act: () => stage.destroy(),
      flaws: async (outcome) => {
        const left = await stage.stateOf(stage.id);
        if (left === null) return [];
        const flaws = outcome === "acknowledged" ? ["it is back"] : [];
        // Whatever is left of it can be destroyed.
        await stage.destroy();
        return flaws;
      },
    }),
  };
}

const dying: Interruptible = {
  name: "clearing up after a death",
  state: "running",
  operations: ["reap"],
  attempt: (stage) => ({
    act: async () => {
      await stage.pause();
      await stage.resume();
      await stage.end();
    },
    flaws: async () => {
      const flaws = await stateFlaws(stage, [SandboxState.DEAD]);
      await stage.recover(RecoverySource.LAST_PAUSE);
      return [...flaws, ...(await stage.losses())];
    },
  }),
};

const deleting: Interruptible = {
  name: "deleting a snapshot",
  state: "running",
  operations: ["delete", "collect"],
  attempt: (stage) => {
    let template: Template | null = null;
    return {
      act: async () => {
        template = await stage.snapshot();
        await stage.client.deleteSnapshot(template);
        await untilDone(stage, "collect");
      },
      flaws: async (outcome) => {
        const flaws = await stage.losses();
        const isThere = template !== null && (await stage.templates()).includes(template.templateId);
        if (isThere && outcome === "acknowledged") flaws.push("the snapshot is back");
        if (isThere && template !== null) {
          flaws.push(...(await stage.lossesOfTemplate(template)));
          await stage.client.deleteSnapshot(template);
        }
        return flaws;
      },
    };
  },
};

const folding: Interruptible = {
  name: "folding a snapshot",
  state: "running",
  operations: ["fold"],
  attempt: (stage) => {
    let template: Template | null = null;
    return {
      act: async () => {
        template = await stage.snapshot();
        await untilDone(stage, "fold");
      },
      flaws: async () => {
        const flaws = await stage.losses();
        if (template === null) return [...flaws, "there was no snapshot"];
        flaws.push(...(await stage.lossesOfTemplate(template)));
        await stage.client.deleteSnapshot(template);
        return flaws;
      },
    };
  },
};

const makingGolden: Interruptible = {
  name: "making a golden snapshot",
  state: "running",
  operations: ["golden"],
  attempt: (stage) => {
    const request = stage.agent.request({ diskMib: 5_120 + Math.floor(Math.random() * 1_000) });
    return {
      act: async () => {
        await stage.client.createSandbox(request);
      },
      flaws: async (outcome) => {
        const flaws = await stage.losses();
        const isThere = (await stage.stateOf(request.sandboxId)) !== null;
        if (outcome === "acknowledged" && !isThere) flaws.push("it is gone");
        if (isThere && outcome === "refused") flaws.push("it was refused, and is there");
        if (!isThere) await stage.client.createSandbox(request);
        await stage.destroy(request.sandboxId);
        return flaws;
      },
    };
  },
};

/** Resolves when a background operation has ended a step since the steps were last forgotten, and ends none any more. */
async function untilDone(stage: Stage, operation: string): Promise<void> {
  let known = 0;
  const look = (): Promise<true | null> => {
    const { length } = stage.faulty.steps([operation]);
    const isQuiet = length > 0 && length === known;
    known = length;
    return Promise.resolve(isQuiet || !stage.faulty.isArmed ? true : null);
  };
  await pollUntil(look, { timeoutMs: 20_000, intervalMs: 500 });
}

export const interruptibles: readonly Interruptible[] = [
  pausing,
  resuming,
  snapshotting("running"),
  snapshotting("paused"),
  forking("running"),
  forking("paused"),
  booting,
  rollingBack,
  destroying("running"),
  destroying("paused"),
  destroying("dead"),
  dying,
  deleting,
  folding,
  makingGolden,
];
