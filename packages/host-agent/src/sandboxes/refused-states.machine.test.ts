/** Frozen states that must not be brought back: made by another machine, damaged, or older than what is on the disk. */
import { chmod, copyFile, open, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { ConnectError } from "@connectrpc/connect";
import { type GenerationId, hostAgentProto, type SandboxId } from "@wrenn/contract";
import { pollUntil, processIdentitySchema, signalProcess } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { engineKinds } from "../engines/engine.ts";
import { Stage } from "../testing/stage.ts";
import { generationManifestSchema, type GenerationManifest } from "../memory/manifest.ts";

const { SandboxState } = hostAgentProto;

let stage: Stage;

// Served, which checks every block whenever it is read. What is mapped is read whole once, and has a test of its own below.
beforeAll(async () => {
  stage = await Stage.open({ WRENN_MEMORY: "uffd" });
});

afterAll(async () => {
  await stage.agent.remove();
});

const journalSchema = z.object({ generation: z.uuid().transform((id) => id as GenerationId) });

async function journalOf(id: string): Promise<unknown> {
  return JSON.parse(await readFile(stage.agent.layout.sandbox(id as SandboxId).journal, "utf8")) as unknown;
}

async function manifestOf(id: string): Promise<{ file: string; manifest: GenerationManifest }> {
  const { generation } = journalSchema.parse(await journalOf(id));
  const file = stage.agent.layout.generation(generation).manifest;
  return { file, manifest: generationManifestSchema.parse(JSON.parse(await readFile(file, "utf8"))) };
}

/** The code that a resume is refused with. */
async function refusal(): Promise<string> {
  try {
    await stage.resume();
  } catch (error) {
    const [info] = ConnectError.from(error).findDetails(hostAgentProto.ErrorInfoSchema);
    return info?.code ?? String(error);
  }
  return "none";
}

/** Changes a file of a frozen state for as long as a piece of work lasts. */
async function whileChanged(file: string, change: (file: string) => Promise<void>, work: () => Promise<void>) {
  // In its directory it would be garbage.
  const aside = path.join(stage.agent.layout.root, "aside");
  await rename(file, aside);
  try {
    await copyFile(aside, file);
    await chmod(file, 0o600);
    await change(file);
    await work();
  } finally {
    await rename(aside, file);
  }
}

async function flip(file: string, at: number): Promise<void> {
  const handle = await open(file, "r+");
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ 0xff;
  await handle.write(byte, 0, 1, at);
  await handle.close();
}

/** A paused sandbox is left as it was by a resume that is refused, and holds nothing. */
async function expectRefused(code: string): Promise<void> {
  expect(await refusal()).toBe(code);
  expect(await stage.stateOf(stage.id)).toBe(SandboxState.PAUSED);
  expect(await stage.agent.traces()).toMatchObject({ engines: [], cgroups: [] });
}

describe("a frozen state that", () => {
  it.each(["engine", "version", "cpu", "machine"] as const)("another %s has made is refused", async (part) => {
    await stage.bring("paused");
    const { file, manifest } = await manifestOf(stage.id);
    const other =
      part === "engine"
        ? engineKinds.find((kind) => kind !== manifest.machine.engine)
        : `${manifest.machine[part]}-other`;
    const machine = { ...manifest.machine, [part]: other };
    const change = (name: string): Promise<void> => writeFile(name, JSON.stringify({ ...manifest, machine }));
    await whileChanged(file, change, () => expectRefused("snapshot_incompatible"));
    expect(await stage.losses()).toEqual([]);
  });

  it("has no whole manifest is refused", async () => {
    await stage.bring("paused");
    const { file } = await manifestOf(stage.id);
    await whileChanged(
      file,
      (name) => truncate(name, 100),
      () => expectRefused("snapshot_damaged"),
    );
    await whileChanged(
      file,
      (name) => rm(name),
      () => expectRefused("snapshot_damaged"),
    );
    expect(await stage.losses()).toEqual([]);
  });

  it("has a damaged header, memory, device state or disk is refused", async () => {
    await stage.bring("paused");
    const { manifest } = await manifestOf(stage.id);
    const { layout } = stage.agent;
    const generation = layout.generation(manifest.id);
    const [memory] = manifest.memory.layers;
    const [disk] = manifest.disk.layers;
    if (memory === undefined || disk === undefined) throw new Error("it has no layers");
    const diskLayer = layout.layer(disk).disk(manifest.disk.format);
    const damage: Record<string, [string, (file: string) => Promise<void>]> = {
      "a changed header": [generation.header(manifest.memory.header), (file) => flip(file, 40)],
      "a torn header": [generation.header(manifest.memory.header), (file) => truncate(file, 50)],
      "a missing header": [generation.header(manifest.memory.header), (file) => rm(file)],
      "a changed device state": [generation.deviceState, (file) => flip(file, 1_000)],
      "a torn device state": [generation.deviceState, (file) => truncate(file, 1_000)],
      "a missing device state": [generation.deviceState, (file) => rm(file)],
      "a torn memory layer": [layout.layer(memory).memory, (file) => truncate(file, 4_096)],
      "a missing memory layer": [layout.layer(memory).memory, (file) => rm(file)],
      "a changed name of the disk below": [
        diskLayer,
        async (file) => flip(file, (await readFile(file)).indexOf(layout.layers) + 5),
      ],
      "a torn disk layer": [diskLayer, async (file) => truncate(file, (await stat(file)).size - 65_536)],
      "a disk layer that is none": [diskLayer, (file) => flip(file, 0)],
      "a missing disk layer": [diskLayer, (file) => rm(file)],
    };
    const seen: Record<string, string> = {};
    for (const [name, [file, change]] of Object.entries(damage)) {
      await whileChanged(file, change, async () => {
        seen[name] = await refusal();
        expect(await stage.agent.traces()).toMatchObject({ engines: [], cgroups: [] });
      });
    }
    expect(seen).toEqual(Object.fromEntries(Object.keys(damage).map((name) => [name, "snapshot_damaged"])));
    expect(await stage.losses()).toEqual([]);
  });
});

it("memory that is damaged is never what a guest reads: who resumes it is told, and it stays paused", async () => {
  await stage.bringNew("paused");
  const { manifest } = await manifestOf(stage.id);
  const [memory] = manifest.memory.layers;
  if (memory === undefined) throw new Error("it has no layers");
  const everyBlock = async (file: string): Promise<void> => {
    const { size } = await stat(file);
    for (let at = 100; at < size; at += 65_536) await flip(file, at);
  };
  await whileChanged(stage.agent.layout.layer(memory).memory, everyBlock, async () => {
    await expectRefused("snapshot_damaged");
  });
  expect(await stage.losses()).toEqual([]);
});

it("memory that is damaged is never mapped: who resumes it is told, and it stays paused", async () => {
  const served = stage;
  stage = await Stage.open();
  try {
    await stage.bringNew("paused");
    const { manifest } = await manifestOf(stage.id);
    // The last one is what the pause has written. One below it that has changed is too long to be read again, and would be served.
    const layer = manifest.memory.layers.at(-1);
    if (layer === undefined) throw new Error("it has no layers");
    await whileChanged(
      stage.agent.layout.layer(layer).memory,
      (file) => flip(file, 100),
      () => expectRefused("snapshot_damaged"),
    );
    expect(await stage.losses()).toEqual([]);
    const { memory } = z.object({ memory: z.object({ layered: z.boolean() }) }).parse(await journalOf(stage.id));
    expect(memory.layered).toBe(!manifest.memory.flat);
  } finally {
    await stage.agent.remove();
    stage = served;
  }
});

it("a sandbox whose memory is served no more dies, says why, and holds nothing", async () => {
  await stage.bringNew("paused");
  await stage.resume();
  const { memory } = z.object({ memory: z.object({ pager: processIdentitySchema }) }).parse(await journalOf(stage.id));
  await signalProcess(memory.pager, "SIGKILL");
  const dead = await pollUntil(async () => ((await stage.stateOf(stage.id)) === SandboxState.DEAD ? true : null), {
    timeoutMs: 20_000,
  });
  expect(dead).toBe(true);
  const { sandbox } = await stage.client.getSandbox({ sandboxId: stage.id });
  expect(sandbox?.death?.code).toBe("memory_unreadable");
  // Who asks for a dead one waits for its end to be dealt with.
  expect(await refusal()).toBe("sandbox_died");
  expect(await stage.agent.traces()).toMatchObject({ engines: [], cgroups: [] });
});

describe("memory is never brought back over a newer disk:", () => {
  it("what has died after a resume stays dead, whoever asks and whatever restarts", async () => {
    await stage.bring("dead");
    expect(await refusal()).toBe("sandbox_died");
    await stage.agent.restart();
    expect(await stage.stateOf(stage.id)).toBe(SandboxState.DEAD);
    expect(await refusal()).toBe("sandbox_died");
    expect(await stage.agent.traces()).toMatchObject({ engines: [], cgroups: [] });
  });

  it("an overlay that is newer than the frozen state is not used, before and after a restart", async () => {
    for (const restarts of [false, true]) {
      await stage.bring("paused");
      const { format } = (await manifestOf(stage.id)).manifest.disk;
      const files = stage.agent.layout.sandbox(stage.id as SandboxId);
      const [overlay, otherOverlay] = [files.overlay(format), files.otherOverlay(format)];
      await stage.bring("running");
      await copyFile(overlay, `${overlay}.newer`);
      await stage.pause();
      for (const file of [overlay, otherOverlay]) await copyFile(`${overlay}.newer`, file);
      await rm(`${overlay}.newer`);
      if (restarts) await stage.agent.restart();
      expect(await stage.losses()).toEqual([]);
    }
  });
});
