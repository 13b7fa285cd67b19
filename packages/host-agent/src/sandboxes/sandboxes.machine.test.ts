/** What only happens when two things coincide: a real VM, whose end is reported at a moment of the test's choice. */
import { rm } from "node:fs/promises";
import { generationLimits, minimalTemplateId, newId, platformTeamId, sandboxLimits } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { pino } from "pino";
import { afterEach, beforeEach, expect, it } from "vitest";
import { deferred } from "../deferred.ts";
import { prepareDirectories } from "../directories.ts";
import { findBootFiles } from "../disks/boot-files.ts";
import { chooseDisks } from "../disks/choice.ts";
import { HostDisks } from "../disks/host-disks.ts";
import { Cgroups } from "../engines/cgroups.ts";
import type { Engine, VmEnd } from "../engines/engine.ts";
import { Engines, findAllEngineProcesses } from "../engines/engines.ts";
import { engineUnderTest } from "../engines/testing/engine-under-test.ts";
import { SlotPool } from "../network/slot-pool.ts";
import { runPlainly } from "../run-step.ts";
import { testToken, TestHostAgent } from "../testing/host-agent-process.ts";
import { Admission } from "./admission.ts";
import type { SandboxContext } from "./context.ts";
import { openFrozenStates } from "./frozen-states.ts";
import { Sandboxes } from "./sandboxes.ts";

const tag = "5b01";
const log = pino({ level: "silent" });

let agent: TestHostAgent;
let cgroups: Cgroups;
let slots: SlotPool;

beforeEach(async () => {
  agent = await TestHostAgent.prepare();
  await prepareDirectories(agent.layout);
  cgroups = await Cgroups.open(tag, log);
  slots = await SlotPool.open({ cidr: "10.241.18.0/24", instance: tag, poolSize: 0 }, []);
});

afterEach(async () => {
  await slots.close();
  await cgroups.close();
  await rm(agent.layout.root, { recursive: true });
});

/** An engine whose VMs are reported dead while the creation writes down that they run, which is when it reads their identity. */
function endingAtCommit(engine: Engine): Engine {
  const { kind, version, reason, opens, mapsLayers } = engine;
  return {
    kind,
    version,
    reason,
    opens,
    mapsLayers,
    identify: (size) => engine.identify(size),
    start: async (...args) => {
      const vm = await engine.start(...args);
      const end = deferred<VmEnd>();
      return {
        ended: end.promise,
        get identity() {
          end.resolve({ code: "vm_died", message: "It ended at once.", at: new Date(), consoleTail: "" });
          return vm.identity;
        },
        drainConsole: () => vm.drainConsole(),
        consoleTail: () => vm.consoleTail(),
        freeze: () => vm.freeze(),
        thaw: () => vm.thaw(),
        isFrozen: () => vm.isFrozen(),
        kill: () => vm.kill(),
        detach: () => vm.detach(),
      };
    },
  };
}

it("a VM that ends while its creation is written down is dead, and frees everything", async () => {
  const { layout } = agent;
  const bootFiles = () => findBootFiles(layout);
  const disks = new HostDisks(layout, await chooseDisks("qcow2"));
  const engine = await new Engines({
    layout,
    cgroups,
    choice: engineUnderTest,
    programs: {},
    disks,
    bootFiles,
  }).current();
  const engines = { current: () => Promise.resolve(endingAtCommit(engine)) };
  const admission = new Admission(layout);
  const context: SandboxContext = {
    layout,
    engines,
    disks,
    slots,
    cgroups,
    admission,
    ...(await openFrozenStates(layout, {
      disks,
      goldenBytes: generationLimits.goldenBytes,
      suspectGarbage: () => undefined,
      runStep: runPlainly,
      log,
    })),
    memoryChoice: "auto",
    servesPages: true,
    suspectGarbage: () => undefined,
    dns: [],
    runStep: runPlainly,
    log,
  };
  const sandboxes = await Sandboxes.open(context, { running: [], paused: [], dead: [], unreadable: [] });
  const id = newId("sandbox");
  await sandboxes.create({
    sandboxId: id,
    teamId: platformTeamId,
    templateTeamId: platformTeamId,
    templateId: minimalTemplateId,
    vcpus: 1,
    memoryMib: 256,
    diskMib: sandboxLimits.diskMib.min,
    envs: {},
    accessToken: testToken,
    templateAccessToken: null,
  });
  try {
    const freed = await pollUntil(
      () => {
        const { journal } = sandboxes.get(id);
        return Promise.resolve(journal.state === "dead" && journal.process === null ? journal : null);
      },
      { timeoutMs: 10_000 },
    );
    expect(freed).toMatchObject({ slot: null, death: { code: "vm_died", message: "It ended at once." } });
    await expect(findAllEngineProcesses(layout)).resolves.toEqual([]);
  } finally {
    await sandboxes.destroy(id);
    await sandboxes.close(0);
  }
});
