/**
 * What a host agent must not forget about a sandbox, whatever happens to it: written durably before every step that would otherwise
 * leave something nobody knows of. Holds no secrets.
 */
import { readdir } from "node:fs/promises";
import {
  diskFormats,
  type ErrorCode,
  isErrorCode,
  memoryBackends,
  parseUuid,
  type RecoverySource,
  type SandboxId,
  type TeamId,
  type TemplateId,
} from "@wrenn/contract";
import { isMissingFile, type Layout, processIdentitySchema, readJson, writeJsonDurably } from "@wrenn/system";
import { z } from "zod";
import { engineKinds, type VmEnd } from "../engines/engine.ts";
import { machineIdentitySchema } from "../memory/manifest.ts";

const uuidSchema = z.uuid();
const sandboxIdSchema = uuidSchema.transform((text) => parseUuid("sandbox", text));
const teamIdSchema = uuidSchema.transform((text): TeamId => parseUuid("team", text));
const templateIdSchema = uuidSchema.transform((text): TemplateId => parseUuid("template", text));
const generationIdSchema = uuidSchema.transform((text) => parseUuid("generation", text));
const layerIdSchema = uuidSchema.transform((text) => parseUuid("layer", text));
const errorCodeSchema = z.string().transform((code): ErrorCode => (isErrorCode(code) ? code : "internal"));

const stepsSchema = z.array(z.object({ step: z.string(), milliseconds: z.number() }));

/** A sandbox's own disk, and what it is laid over. */
const diskSchema = z.object({
  /** Journals without it are older than the second format. */
  format: z.enum(diskFormats).default("qcow2"),
  /** Which of its two overlays the engine writes to. They take turns, because an engine opens the one that it leaves by its name again. */
  overlay: z.enum(["overlay", "otherOverlay"]),
  /** Layers below the overlay, the topmost first. */
  layers: z.array(layerIdSchema),
  /** The raw root filesystem below them all. */
  rootfs: z.string(),
  /** The overlay has become this layer, or is about to: the other one then takes its place. */
  switchingTo: layerIdSchema.nullable(),
});
export type Disk = z.infer<typeof diskSchema>;

/** How a running VM has its memory, and what the next frozen state of it is compared with. */
const memorySchema = z.object({
  backend: z.enum(memoryBackends),
  /** What is mapped, with `file`: that layer. Null maps blank memory, as a cold boot does. */
  mapped: layerIdSchema.nullable(),
  /** Other layers are mapped too, and that one wherever nothing has replaced it: it tells where memory lies. */
  layered: z.boolean().default(false),
  /** Serves the pages, with `uffd`. */
  pager: processIdentitySchema.nullable(),
  /** The latest frozen state of this VM, or the one it was started from. Null for one that was booted and never frozen. */
  parent: generationIdSchema.nullable(),
});
export type MemorySource = z.infer<typeof memorySchema>;

const common = {
  version: z.literal(2),
  sandboxId: sandboxIdSchema,
  teamId: teamIdSchema,
  template: z.object({ teamId: teamIdSchema, templateId: templateIdSchema }),
  vcpus: z.number().int().positive(),
  memoryMib: z.number().int().positive(),
  diskMib: z.number().int().positive(),
  engine: z.enum(engineKinds),
  createdAt: z.iso.datetime(),
  steps: stepsSchema,
};

/** What must be freed: null for what has not been taken yet, or is freed already. */
const held = { slot: z.number().int().nullable(), process: processIdentitySchema.nullable() };

/** What a sandbox is that can be gone back to: the pause that it was last resumed from. */
const lastPause = { lastPause: generationIdSchema.nullable() };

const deathSchema = z.object({
  code: errorCodeSchema,
  message: z.string(),
  at: z.iso.datetime(),
  consoleTail: z.string(),
});
export type Death = z.infer<typeof deathSchema>;

export const journalSchema = z.discriminatedUnion("state", [
  /** Started for the first time; half-made, it is removed. */
  z.object({ ...common, ...held, state: z.literal("creating"), origin: generationIdSchema.nullable() }),
  z.object({
    ...common,
    ...lastPause,
    state: z.literal("running"),
    slot: z.number().int(),
    process: processIdentitySchema,
    /** What the VM was started as; the host's engine may have been replaced since. */
    machine: machineIdentitySchema,
    /** Why it was that engine. */
    engineReason: z.string().optional(),
    memory: memorySchema,
    disk: diskSchema,
  }),
  /** Frozen: memory, devices and disk are in the generation, and nothing else is held. */
  z.object({ ...common, state: z.literal("paused"), generation: generationIdSchema, pausedAt: z.iso.datetime() }),
  /** Started from its generation; half-made, it is paused again. */
  z.object({
    ...common,
    ...held,
    state: z.literal("resuming"),
    generation: generationIdSchema,
    pausedAt: z.iso.datetime(),
  }),
  /** The VM is gone. Until it is destroyed or recovered, it tells why, and its disk is kept as the death left it. */
  z.object({ ...common, ...held, ...lastPause, state: z.literal("dead"), disk: diskSchema, death: deathSchema }),
  /** Booted from the disk that its death left; half-made, it is dead again. */
  z.object({ ...common, ...held, ...lastPause, state: z.literal("recovering"), disk: diskSchema, death: deathSchema }),
  z.object({ ...common, ...held, state: z.literal("destroying") }),
]);
export type Journal = z.infer<typeof journalSchema>;
export type RunningJournal = Extract<Journal, { state: "running" }>;
export type PausedJournal = Extract<Journal, { state: "paused" }>;
export type DeadJournal = Extract<Journal, { state: "dead" }>;

/** The part of a journal that never changes. */
export type SandboxFacts = Pick<
  Journal,
  "version" | "sandboxId" | "teamId" | "template" | "vcpus" | "memoryMib" | "diskMib" | "engine" | "createdAt"
>;

export function factsOf(journal: Journal): SandboxFacts {
  const { version, sandboxId, teamId, template, vcpus, memoryMib, diskMib, engine, createdAt } = journal;
  return { version, sandboxId, teamId, template, vcpus, memoryMib, diskMib, engine, createdAt };
}

/** The journal of a sandbox whose VM has ended. */
export function deadJournal(
  journal: RunningJournal,
  end: VmEnd,
  held: Pick<DeadJournal, "slot" | "process">,
): DeadJournal {
  const { code, message, consoleTail } = end;
  return {
    ...factsOf(journal),
    state: "dead",
    ...held,
    lastPause: journal.lastPause,
    disk: journal.disk,
    steps: journal.steps,
    death: { code, message, consoleTail, at: end.at.toISOString() },
  };
}

/** What a dead sandbox can be started again from. */
export function recoverySourcesOf(journal: DeadJournal): RecoverySource[] {
  return journal.lastPause === null ? ["disk"] : ["disk", "last_pause"];
}

export async function writeJournal(layout: Layout, journal: Journal): Promise<void> {
  await writeJsonDurably(layout.sandbox(journal.sandboxId).journal, journal);
}

/** What an earlier host agent left. */
export interface JournalInventory {
  readonly journals: Journal[];
  /** A directory was made, and nothing was written down yet: there is nothing in it. */
  readonly blank: SandboxId[];
  /** Something is written down that this version cannot read. What it refers to is not known, so nothing may be taken for garbage. */
  readonly unreadable: SandboxId[];
  /** Names in the directory of sandboxes that are not even an id. */
  readonly foreign: string[];
}

export async function readJournals(layout: Layout): Promise<JournalInventory> {
  const inventory: JournalInventory = { journals: [], blank: [], unreadable: [], foreign: [] };
  for (const name of await directoryNames(layout.sandboxes)) {
    const id = sandboxIdSchema.safeParse(name);
    if (!id.success) {
      inventory.foreign.push(name);
      continue;
    }
    const content = await readJournalFile(layout.sandbox(id.data).journal);
    const journal = journalSchema.safeParse(content);
    if (content === null) inventory.blank.push(id.data);
    else if (journal.success && journal.data.sandboxId === id.data) inventory.journals.push(journal.data);
    else inventory.unreadable.push(id.data);
  }
  return inventory;
}

/** Null when there is no such file. */
async function readJournalFile(file: string): Promise<unknown> {
  try {
    return await readJson(file);
  } catch (error) {
    if (error instanceof SyntaxError) return "not JSON";
    throw error;
  }
}

async function directoryNames(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}
