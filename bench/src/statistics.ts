/** Order statistics of measured samples: nearest-rank percentiles, and the ratio of two series with its interval. */

/** The nearest-rank percentile: the smallest sample that at least `p` percent of the samples do not exceed. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil((p / 100) * sorted.length) - 1)];
  if (value === undefined) throw new Error("no samples");
  return value;
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 50);
}

export interface Ratio {
  readonly value: number;
  /** 95 % bootstrap interval. */
  readonly low: number;
  readonly high: number;
}

/** How many resamplings the interval rests on; more changes its ends by less than the second decimal. */
const resamplings = 2_000;

/** The ratio of a percentile of two series, with an interval by resampling each series. */
export function ratioOf(ours: readonly number[], bare: readonly number[], p = 50): Ratio {
  const random = seededRandom(1);
  const resample = (samples: readonly number[]): number[] =>
    samples.map(() => samples[Math.floor(random() * samples.length)] ?? Number.NaN);
  const ratios = Array.from(
    { length: resamplings },
    () => percentile(resample(ours), p) / percentile(resample(bare), p),
  );
  return {
    value: percentile(ours, p) / percentile(bare, p),
    low: percentile(ratios, 2.5),
    high: percentile(ratios, 97.5),
  };
}

/** Mulberry32, so that one set of samples always gives one interval. */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
