/** Create from a golden snapshot until the first command's output, one at a time and twenty at once, against a bare restore of the same state. */
import { timeBareRestores, timeCreates } from "../first-output.ts";
import { besideBare } from "../frozen-host.ts";
import { type Measurement, progressLine } from "../report.ts";
import { Series } from "../series.ts";

const atOnce = 20;
/** Bursts for each single create: they take seconds. */
const burstsPerRun = 1 / 8;

export async function measureRestoreCreate(runs: number): Promise<Measurement[]> {
  const bursts = Math.max(1, Math.round(runs * burstsPerRun));
  const single = new Series();
  const burst = new Series();
  await besideBare({ slots: atOnce, networks: atOnce }, async (host, networks) => {
    for (let round = 0; round < runs; round += 1) {
      await single.add({
        bare: () => timeBareRestores(host, networks.slice(0, 1)),
        ours: () => timeCreates(host, 1),
      });
      console.error(progressLine("create from a golden snapshot", round + 1, runs, single.ours));
    }
    for (let round = 0; round < bursts; round += 1) {
      await host.awaitSlots(atOnce);
      await burst.add({ bare: () => timeBareRestores(host, networks), ours: () => timeCreates(host, atOnce) });
      console.error(progressLine(`${atOnce} at once`, round + 1, bursts, burst.ours));
    }
  });
  const name = "create from a golden snapshot until the first command's output";
  return [
    single.measurement(`${name}, one at a time`, 1.3),
    burst.measurement(`${name}, ${atOnce} at once: the last of them`, 1.2),
  ];
}
