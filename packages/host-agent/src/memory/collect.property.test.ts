/** Random histories of frozen states: whatever happens in whatever order, what has a root is whole, and in the end there is nothing else. */
import { rm } from "node:fs/promises";
import { Writable } from "node:stream";
import type { GenerationId, LayerId, TemplateId } from "@wrenn/contract";
import { createLog } from "@wrenn/system";
import fc from "fast-check";
import { expect, it } from "vitest";
import { deferred } from "../deferred.ts";
import { GarbageCollector } from "./collect.ts";
import type { GenerationDraft } from "./draft.ts";
import { FoldQueue } from "./fold.ts";
import { GoldenRecords } from "./golden.ts";
import type { GenerationManifest } from "./manifest.ts";
import { collectRoots } from "./roots.ts";
import { neverFlattened, standInPager, testMachine, TestStates } from "./testing/states.ts";

const silent = createLog({ level: "silent" });

/** A way in which a state can be named, whole or only its disk, as by the journal of a sandbox that lost its memory. */
interface Root {
  readonly generation: GenerationId | null;
  readonly layers: readonly LayerId[];
  readonly kind: { readonly template: TemplateId } | { readonly golden: string } | "journal";
}

const index = fc.nat(20);
const rootKind = fc.constantFrom("template" as const, "golden" as const, "journal" as const, "disk" as const);
type RootKind = typeof rootKind extends fc.Arbitrary<infer Value> ? Value : never;
/** How far a process gets with a new state before it is killed, or gives up. */
const stage = fc.constantFrom("begun" as const, "filled" as const, "published" as const);
const event = fc.oneof(
  { weight: 4, arbitrary: fc.record({ does: fc.constant("publish" as const), parent: index, root: rootKind }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("copy" as const), root: index, kind: rootKind }) },
  { weight: 3, arbitrary: fc.record({ does: fc.constant("drop" as const), root: index }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("discard" as const), parent: index, stage }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("killed draft" as const), parent: index, stage }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("fold" as const), root: index }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("killed fold" as const), root: index }) },
  { weight: 3, arbitrary: fc.record({ does: fc.constant("sweep" as const) }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("killed sweep" as const), removals: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("drafts and a sweep" as const), parent: index, stage }) },
);
type Event = typeof event extends fc.Arbitrary<infer Value> ? Value : never;

class History {
  readonly #states: TestStates;
  readonly #golden: GoldenRecords;
  readonly #roots: Root[] = [];
  #collector: GarbageCollector;
  #goldenCount = 0;

  constructor(states: TestStates) {
    this.#states = states;
    this.#golden = new GoldenRecords(states.layout, 0);
    this.#collector = new GarbageCollector(states.generations, silent);
  }

  async happen(event: Event): Promise<void> {
    switch (event.does) {
      case "publish": {
        const { draft, manifest } = await this.#draft(event.parent, "published");
        if (manifest !== undefined) await this.#addRoot(manifest, event.root);
        draft.release();
        return;
      }
      case "copy": {
        const manifest = await this.#manifestAt(event.root);
        if (manifest !== null) await this.#addRoot(manifest, event.kind);
        return;
      }
      case "drop":
        return this.#dropRoot(event.root);
      case "discard": {
        const { draft } = await this.#draft(event.parent, event.stage);
        return draft.discard();
      }
      case "killed draft":
        await this.#draft(event.parent, event.stage);
        return this.#restart();
      case "fold":
        return this.#fold(event.root);
      case "killed fold":
        await this.#beginFold(event.root);
        return this.#restart();
      case "sweep":
        await this.#sweep();
        return;
      case "killed sweep":
        await this.#killedSweep(event.removals);
        return this.#restart();
      case "drafts and a sweep": {
        const [{ draft, manifest }] = await Promise.all([this.#draft(event.parent, event.stage), this.#sweep(true)]);
        await this.#sweep(true);
        if (manifest !== undefined) await this.#addRoot(manifest, "journal");
        else await draft.discard();
        draft.release();
      }
    }
  }

  /** What has a root and is not whole. */
  async flaws(): Promise<string[]> {
    const flaws = await Promise.all(this.#generations().map((generation) => this.#states.flaws(generation)));
    const present = new Set(await this.#states.present());
    const lost = this.#roots.flatMap(({ layers }) => layers).filter((layer) => !present.has(layer));
    return [...flaws.flat(), ...lost];
  }

  /** After the last process has gone: two looks of the next leave what is expected, which is returned beside what is there. */
  async settle(): Promise<{ present: string[]; expected: string[]; strays: string[] }> {
    await this.#restart();
    await this.#sweep();
    await this.#sweep();
    const expected = await this.#states.expected(
      this.#generations(),
      this.#roots.flatMap(({ layers }) => layers),
    );
    return { present: await this.#states.present(), expected, strays: await this.#states.strays() };
  }

  #generations(): GenerationId[] {
    return this.#roots.flatMap(({ generation }) => generation ?? []);
  }

  async #restart(): Promise<void> {
    await this.#states.restart();
    this.#collector = new GarbageCollector(this.#states.generations, silent);
  }

  async #draft(
    parent: number,
    until: "begun" | "filled" | "published",
  ): Promise<{ draft: GenerationDraft; manifest?: GenerationManifest }> {
    const parentManifest = await this.#manifestAt(parent);
    const draft = await this.#states.generations.begin();
    if (until === "begun") return { draft };
    const content = await this.#states.fill(draft, parentManifest);
    return until === "filled" ? { draft } : { draft, manifest: await draft.publish(content) };
  }

  async #manifestAt(at: number): Promise<GenerationManifest | null> {
    const root = this.#roots[at % Math.max(1, this.#roots.length)];
    return root === undefined || root.generation === null ? null : this.#states.generations.read(root.generation);
  }

  async #addRoot(manifest: GenerationManifest, kind: RootKind): Promise<void> {
    const { id: generation } = manifest;
    switch (kind) {
      case "template":
        this.#roots.push({ generation, layers: [], kind: { template: await this.#states.keepAsTemplate(generation) } });
        return;
      case "golden": {
        this.#goldenCount += 1;
        const shape = {
          rootfs: "/r",
          kernel: "/k",
          initramfs: "/i",
          vcpus: 1,
          memoryMib: this.#goldenCount,
          diskMib: 1,
        };
        const golden = await this.#golden.record({ ...shape, machine: testMachine, diskFormat: "qcow2" }, generation);
        this.#roots.push({ generation, layers: [], kind: { golden } });
        return;
      }
      case "disk":
        this.#roots.push({ generation: null, layers: manifest.disk.layers, kind: "journal" });
        return;
      case "journal":
        this.#roots.push({ generation, layers: manifest.disk.layers, kind: "journal" });
    }
  }

  async #dropRoot(at: number): Promise<void> {
    const [root] = this.#roots.splice(at % Math.max(1, this.#roots.length), 1);
    if (root === undefined || root.kind === "journal") return;
    if ("golden" in root.kind) await this.#golden.forget(root.kind.golden);
    else await this.#states.removeTemplate(root.kind.template);
  }

  async #fold(at: number): Promise<void> {
    const manifest = await this.#manifestAt(at);
    if (manifest === null) return;
    const { generations, layout } = this.#states;
    const folds = new FoldQueue({ generations, pager: standInPager(layout), flattenDisk: neverFlattened, log: silent });
    folds.add(manifest.id, { flat: true });
    await folds.idle();
  }

  /** Up to where the new layer and header have been written, and the manifest has not. */
  async #beginFold(at: number): Promise<void> {
    const manifest = await this.#manifestAt(at);
    if (manifest === null || manifest.memory.flat) return;
    const { generations, layout } = this.#states;
    const written = deferred<void>();
    const fold: ReturnType<typeof standInPager>["fold"] = async (request, signal) => {
      await standInPager(layout).fold(request, signal);
      written.resolve();
      return new Promise(() => undefined);
    };
    const folds = new FoldQueue({ generations, pager: { fold }, flattenDisk: neverFlattened, log: silent });
    folds.add(manifest.id, { flat: true });
    await written.promise;
  }

  async #sweep(atOnce = false): Promise<void> {
    await this.#collector.sweep(() => this.#findRoots(), { atOnce });
  }

  async #killedSweep(removals: number): Promise<void> {
    const killed = new AbortController();
    let left = removals;
    if (left === 0) killed.abort();
    const destination = new Writable({
      write: (_line, _encoding, done) => {
        left -= 1;
        if (left <= 0) killed.abort();
        done();
      },
    });
    const collector = new GarbageCollector(this.#states.generations, createLog({ level: "info", destination }));
    const sweep = collector.sweep(() => this.#findRoots(), { atOnce: true, signal: killed.signal });
    await sweep.catch((error: unknown) => {
      if (!killed.signal.aborted) throw error;
    });
  }

  async #findRoots(): ReturnType<typeof collectRoots> {
    const journals = this.#roots.filter(({ kind }) => kind === "journal");
    return collectRoots(
      this.#states.layout,
      journals.map(({ generation, layers }) => ({ generations: generation === null ? [] : [generation], layers })),
    );
  }
}

it("whatever is made, copied, folded, dropped, swept and killed, what has a root is whole and nothing else stays", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { minLength: 5, maxLength: 30, size: "max" }), async (events) => {
      const states = await TestStates.make();
      try {
        const history = new History(states);
        for (const event of events) {
          await history.happen(event);
          expect(await history.flaws()).toEqual([]);
        }
        const { present, expected, strays } = await history.settle();
        expect(present).toEqual(expected);
        expect(strays).toEqual([]);
        expect(await history.flaws()).toEqual([]);
      } finally {
        await rm(states.layout.root, { recursive: true });
      }
    }),
    { numRuns: 25 },
  );
}, 120_000);
