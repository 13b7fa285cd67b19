/**
 * What it costs the processors to make a disk of device-mapper and attach it, over a layer that others use already. The bare side is a
 * shell script with the kernel's tools, and nothing that could be undone.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { detectDmSnapshot, DiskStand } from "@wrenn/host-agent/testing";
import { run } from "@wrenn/system";
import { type Measurement, progressLine } from "../report.ts";

/** Of processes that have ended the kernel tells the time in ticks of 10 ms: of so many disks, that is a fraction of one. */
const disksARound = 20;
const tickMs = 10;

const sizeMib = 5_120;

const bareScript = `
for n in $(seq ${disksARound}); do
  truncate -s 5400M "$1/$n"
  loop=$(losetup --find --show "$1/$n")
  dmsetup create --noudevsync --noudevrules --verifyudev --table "0 ${sizeMib * 2_048} snapshot $2 $loop P 8" "wrenn-bare-$n"
  losetup --detach "$loop"
done`;

export async function measureDiskAttach(runs: number): Promise<Measurement[]> {
  const { usable, reason } = await detectDmSnapshot();
  if (!usable) {
    console.error(`disk-attach is not measured here: ${reason}. In the lab it can be (docs/lab.md).`);
    return [];
  }
  const ours: number[] = [];
  const bare: number[] = [];
  const stand = await DiskStand.open({ sizeMib });
  try {
    const chain = await stand.layer(stand.bare, []);
    const user = await stand.attached(chain);
    for (let round = 0; round < runs; round += 1) {
      ours.push(
        await processTime(
          async () => {
            const disks = [];
            for (let n = 0; n < disksARound; n += 1) disks.push(await stand.attached(chain));
            return disks;
          },
          async (disks) => {
            for (const { sandboxId } of disks) await stand.disks.detach(sandboxId);
          },
        ),
      );
      const directory = await mkdtemp(path.join(tmpdir(), "wrenn-bare-"));
      const below = await layerBelow(user.device);
      bare.push(
        await processTime(
          () => run("sh", ["-ec", bareScript, "sh", directory, below]),
          async () => {
            const names = Array.from({ length: disksARound }, (_, n) => `wrenn-bare-${n + 1}`);
            await run("dmsetup", ["remove", ...names]);
            await rm(directory, { recursive: true });
          },
        ),
      );
      console.error(progressLine("disk-attach", round + 1, runs, ours));
    }
  } finally {
    await stand.remove();
  }
  const beyond = ours.map((milliseconds, round) => milliseconds - (bare[round] ?? 0));
  const name = "a disk of device-mapper made and attached, processor time";
  return [
    { name, unit: "ms", ours, bare, target: null, failures: 0 },
    { name: `${name} beyond a script's`, unit: "ms", ours: beyond, target: 20, failures: 0 },
  ];
}

/** Milliseconds for each disk, of this process and of all that it has run. */
async function processTime<Made>(make: () => Promise<Made>, remove: (made: Made) => Promise<void>): Promise<number> {
  const [own, children] = [process.cpuUsage(), await childrensTime()];
  const made = await make();
  const { user, system } = process.cpuUsage(own);
  const spent = (user + system) / 1_000 + ((await childrensTime()) - children);
  await remove(made);
  return spent / disksARound;
}

/** Milliseconds of all processes that this one has waited for (proc(5): cutime and cstime). */
async function childrensTime(): Promise<number> {
  const stat = await readFile("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) * tickMs;
}

/** The device that a disk lies on, by number, as dmsetup takes it. */
async function layerBelow(device: string): Promise<string> {
  const { stdout } = await run("dmsetup", ["table", device]);
  return stdout.split(" ")[3] ?? "";
}
