/** A host agent that is killed while it makes, changes or removes a disk: the next one clears up, and nothing that was written is lost. */
import { newId } from "@wrenn/contract";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chosen } from "../../testing/interruption.ts";
import type { DiskChain } from "../disks.ts";
import { detectDmSnapshot } from "./detect.ts";
import { DmSnapshotDisks } from "./dm-snapshot-disks.ts";
import { DiskStand, missingFrom, noise, writeTo } from "./testing/disk-stand.ts";
import { killedAt, type KillPoint, type Moment } from "./testing/killed-call.ts";
import type { OneCall } from "./testing/one-call.ts";

const { usable, reason } = await detectDmSnapshot();
const moments: readonly Moment[] = ["instead", "after", "while"];

describe.skipIf(!usable)(`killed at a step${usable ? "" : ` (${reason})`}`, () => {
  let stand: DiskStand;
  let chain: DiskChain;
  const frozen = noise(5);

  beforeEach(async () => {
    stand = await DiskStand.open({ sizeMib: 64 });
    chain = await stand.layer(stand.bare, [frozen]);
  });

  afterEach(async () => {
    await stand.remove();
  });

  /** Does it undisturbed, then again and again with a kill at each of these points; `check` looks at what the next host agent makes of it. */
  async function killEverywhere(
    prepare: () => Promise<OneCall>,
    check: (call: OneCall, successor: DmSnapshotDisks) => Promise<void>,
  ): Promise<void> {
    const { programs } = await killedAt(await prepare(), { program: 0, moment: "instead" });
    await stand.disks.clear([]);
    const points = Array.from({ length: programs }, (_, index) => index + 1).flatMap((program) =>
      moments.map((moment): KillPoint => ({ program, moment })),
    );
    for (const point of chosen(points, 7)) {
      const call = await prepare();
      expect({ ...point, ...(await killedAt(call, point)) }).toMatchObject({ ...point, killed: true });
      await check(call, new DmSnapshotDisks(stand.layout));
      await stand.disks.clear([]);
      expect({ ...point, left: await stand.devices() }).toEqual({ ...point, left: [] });
    }
  }

  it("of attaching, it leaves nothing that the next does not remove", async () => {
    await killEverywhere(
      async () => {
        const disk = await stand.disk(chain);
        await stand.disks.createOverlay(disk);
        return { root: stand.layout.root, call: "attach", disk };
      },
      async ({ disk }, successor) => {
        await successor.clear([]);
        expect(await stand.devices()).toEqual([]);
        expect(await missingFrom((await successor.attach(disk)).path, [frozen])).toEqual([]);
      },
    );
  }, 1_800_000);

  it("of detaching, it leaves nothing that the next does not remove", async () => {
    const own = noise(6);
    await killEverywhere(
      async () => {
        const disk = await stand.attached(chain);
        await writeTo(disk.device, [own]);
        return { root: stand.layout.root, call: "detach", disk };
      },
      async ({ disk }, successor) => {
        await successor.detach(disk.sandboxId);
        expect(await missingFrom((await successor.attach(disk)).path, [frozen, own])).toEqual([]);
      },
    );
  }, 1_800_000);

  it("of switching to another overlay, it leaves the disk with one of the two, and all that was written", async () => {
    const [own, late] = [noise(6), noise(7)];
    await killEverywhere(
      async () => {
        const disk = await stand.attached(chain);
        await writeTo(disk.device, [own]);
        const layer = newId("layer");
        await stand.disks.keepAsLayer(disk, layer);
        const next = stand.next(disk, layer);
        await stand.disks.createOverlay(next);
        return { root: stand.layout.root, call: "switchOverlay", disk: next };
      },
      async ({ disk: next }, successor) => {
        await successor.clear([next.sandboxId]);
        const isSwitched = await successor.finishSwitch(next, next.file);
        const { file } = await stand.disk(chain, next.sandboxId);
        const present = isSwitched ? next : { ...next, file, below: chain };
        const device = `/dev/mapper/${(await stand.devices()).find((name) => name.includes("-sandbox-")) ?? ""}`;
        await writeTo(device, [late]);
        await successor.detach(next.sandboxId);
        expect(await stand.devices()).toEqual([]);
        expect(await missingFrom((await successor.attach(present)).path, [frozen, own, late])).toEqual([]);
      },
    );
  }, 1_800_000);
});
